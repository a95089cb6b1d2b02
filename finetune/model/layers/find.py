"""Finds the layers of a network: the segments between points where its forward graph can be cut.

A *layer* is the segment between two points of the forward graph, in execution order, that only one tensor
crosses. Freezing, ``finetune layers``, layer-wise rates, probing and caching use this definition:

- The graph is traced in eval mode with :mod:`torch.fx` (Reed et al. 2022), down to the modules that compute
  something themselves. A point is a cut if exactly one value computed from the image is still needed there,
  and this value is a tensor. Parameters do not count.
- A segment without a convolution, linear layer or attention (a norm, activation, pooling, dropout or
  reshaping; adding or concatenating a bare parameter) joins the layer before it or, at the start, the first.
- Neighbouring segments that are steps of one module's forward, such as the attention and the MLP of a
  transformer block, form one layer.
- A parameter belongs to the first layer that uses it.
- The head is the last linear layer or convolution and everything after it. Parameters outside the eval-mode
  graph (auxiliary classifiers) belong to it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from finetune.errors import FinetuneError
from finetune.model.layers.graph import ForwardGraph
from finetune.model.layers.table import LayerTable, tabulate


def find_layers(module: nn.Module, head_path: str | None = None) -> LayerTable:
    """Find the layers of a network, by the definition above.

    Args:
        module: any network with one image as input, on any device. It does not change.
        head_path: the module that the head begins with. A new head may begin with dropout, which would
            otherwise join the body. None: the last linear layer or convolution.

    Raises:
        FinetuneError: the network cannot be traced, no single tensor leads to its head, or it has no layer
            before the head.
    """
    graph = ForwardGraph(module)
    start, head_name = graph.find_head(head_path)
    groups = _group(graph, start)
    groups.append(_Group(head_name, graph.order[start:]))
    return _tabulate(module, graph, groups)


@dataclass
class _Group:
    """The nodes of one layer. ``path``: the module whose forward contains them."""

    name: str
    nodes: list[fx.Node]
    path: str = ""


def _segments(graph: ForwardGraph, stop: int) -> list[list[fx.Node]]:
    """Divide the nodes before ``order[stop]`` wherever only one tensor crosses."""
    found: list[list[fx.Node]] = [[]]
    for index, node in enumerate(graph.order[:stop]):
        found[-1].append(node)
        crossing = graph.crossing[index]
        # Nodes that read shapes from a single tensor make no further cut.
        if crossing is not None and (index == 0 or crossing is not graph.crossing[index - 1]):
            found.append([])
    return [segment for segment in found if segment]


def _group(graph: ForwardGraph, stop: int) -> list[_Group]:
    groups: list[_Group] = []
    leading: list[fx.Node] = []
    seen: set[str] = set()
    for segment in _segments(graph, stop):
        mixing = [node for node in segment if graph.mixes(node)]
        # A segment that only reuses weights has nothing to freeze.
        weighty = any(name not in seen for node in mixing for name in graph.parameters(node))
        seen.update(name for node in segment for name in graph.parameters(node))
        if not weighty:
            (groups[-1].nodes if groups else leading).extend(segment)
            continue
        path = _common_path([graph.paths(node) for node in segment])
        if groups and path and path == groups[-1].path:
            groups[-1].nodes.extend(segment)
            continue
        groups.append(_Group(_name(graph, path, mixing, groups), leading + segment, path))
        leading = []
    if not groups:
        raise FinetuneError(f"{type(graph.module).__name__} has no layer before its head")
    return groups


def _name(graph: ForwardGraph, path: str, mixing: Sequence[fx.Node], groups: Sequence[_Group]) -> str:
    """A unique name: the deepest module of the segment, or of its weights, or of its first weight."""
    first = graph.parameters(mixing[0])[0]
    name = path or _common_path([graph.paths(node) for node in mixing]) or first.rpartition(".")[0] or first
    taken = {group.name for group in groups}
    numbered = (f"{name}#{i}" for i in range(2, len(groups) + 2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _common_path(stacks: Sequence[Sequence[str]]) -> str:
    """The deepest module that all nodes run in; "" for the network itself."""
    common = ""
    for together in zip(*stacks, strict=False):
        if len(set(together)) > 1:
            break
        common = together[0]
    return common


def _tabulate(module: nn.Module, graph: ForwardGraph, groups: Sequence[_Group]) -> LayerTable:
    owner: dict[str, int] = {}
    spans: dict[str, tuple[int, int]] = {}
    for number, group in enumerate(groups, start=1):
        for node in group.nodes:
            for name in graph.parameters(node):
                owner.setdefault(name, number)
            for each in (node, *graph.sources[node]):
                for path in ("", *graph.paths(each)):
                    first, last = spans.get(path, (number, number))
                    spans[path] = min(first, number), max(last, number)
    owner = {name: owner.get(name, len(groups)) for name, _ in module.named_parameters()}
    return tabulate(module, [group.name for group in groups], owner, spans, _ends(graph, groups))


def _ends(graph: ForwardGraph, groups: Sequence[_Group]) -> list[str | None]:
    """The node whose value leaves each group; None for the last group."""
    ends: list[str | None] = []
    index = -1
    for group in groups[:-1]:
        index += len(group.nodes)
        crossing = graph.crossing[index]
        if crossing is None:
            raise FinetuneError(f"internal error: more than one tensor leaves {group.name}")
        ends.append(crossing.name)
    return [*ends, None]
