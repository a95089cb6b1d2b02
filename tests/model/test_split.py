"""A network cut at a layer's end into prefix and suffix computes the same bits as whole."""

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from finetune.model.backbones import create
from finetune.model.graph import trace
from finetune.model.layers import find_layers


def part(module: nn.Module, start: str | None, stop: str | None) -> fx.GraphModule:
    """The graph from node ``start`` (None: the picture) to node ``stop`` (None: the logits)."""
    nodes = list(trace(module).nodes)
    by_name = {node.name: node for node in nodes}
    target = by_name[stop] if stop else nodes[-1].args[0]
    source = by_name[start] if start else nodes[0]
    needed, waiting = {source}, [target]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    assert source is nodes[0] or nodes[0] not in needed, "more than one tensor crosses"
    graph, copies = fx.Graph(), {}
    for node in nodes:
        if node is source:
            copies[node] = graph.placeholder("x")
        elif node in needed:
            copies[node] = graph.node_copy(node, lambda each: copies[each])
    graph.output(copies[target])
    return fx.GraphModule(module, graph)


@pytest.mark.parametrize(
    ("name", "size", "cuts"),
    [
        ("resnet18", 32, (1, 4, 9)),
        ("densenet121", 32, (1, 2, 3, 8)),
        ("vit_b_16", 32, (1, 7, 13)),
        ("efficientnet_lite0", 33, (1, 2, 15, 31)),
    ],
)
def test_same_bits(name: str, size: int, cuts: tuple[int, ...]) -> None:
    network = create(name, 10, image_size=size).eval()
    table = find_layers(network)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = network(images)
        for k in cuts:
            cut = table.body[k - 1].cut
            between = part(network, None, cut)(images)
            assert torch.equal(part(network, cut, None)(between), whole)


def test_every_cut_of_a_small_network(small: Callable[..., nn.Module], family: str) -> None:
    network = small(family).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, x, before = network(images), images, None
        for layer in find_layers(network).layers:
            x = part(network, before, layer.cut)(x)
            before = layer.cut
    assert torch.equal(x, whole)


def test_a_wrong_cut_is_noticed(small: Callable[..., nn.Module]) -> None:
    """The positive control: inside a residual block, two tensors cross."""
    with pytest.raises(AssertionError, match="more than one tensor"):
        part(small("resnet").eval(), "layer1_0_bn1", None)
