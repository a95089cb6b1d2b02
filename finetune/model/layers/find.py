"""What a layer is: where the forward graph can be cut, found by symbolic tracing.

A *layer* is the stretch between two points of the forward graph, in execution order, that only one tensor
crosses. Freezing, ``finetune layers``, layer-wise rates, probing and caching stand on this definition:

- The graph is traced in eval mode with :mod:`torch.fx` (Reed et al. 2022), down to the modules that compute
  something themselves. A point is a cut where exactly one value that was computed from the image is still
  needed, and that value is a tensor. Fetching a parameter does not count.
- A stretch without a convolution, linear map or attention (a norm, activation, pooling, dropout or reshaping;
  adding or concatenating a bare parameter) joins the layer before it; at the very start, the first layer.
- Neighbouring stretches that are steps of one module's own forward, such as the attention and the MLP of a
  transformer block, are one layer.
- A parameter belongs to the layer that first uses it.
- The head is the last linear map or convolution and what follows, together with every parameter that the
  eval-mode graph does not reach (auxiliary classifiers).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from finetune.errors import FinetuneError
from finetune.model.layers.graph import ForwardGraph
from finetune.model.layers.table import Layer, LayerTable


def find_layers(module: nn.Module, head_path: str | None = None) -> LayerTable:
    """The layers of a network, by the definition at the top of this module.

    Args:
        module: any network of one image input; the meta device will do. It is left unchanged.
        head_path: the module that the head begins with, where that is known (a new head may begin with
            dropout, which would otherwise join the body); None: the last linear map or convolution.

    Raises:
        FinetuneError: the network cannot be traced, has no head that one tensor leads to, or has no layer
            before it.
    """
    graph = ForwardGraph(module)
    start, head_name = graph.find_head(head_path)
    groups = _group(graph, start)
    groups.append(_Group(head_name, graph.order[start:]))
    return _tabulate(module, graph, groups)


@dataclass
class _Group:
    """Nodes that will be one layer; ``path`` is the module whose forward they are steps of."""

    name: str
    nodes: list[fx.Node]
    path: str = ""


def _stretches(graph: ForwardGraph, stop: int) -> list[list[fx.Node]]:
    """The nodes before ``order[stop]``, cut wherever one tensor crosses."""
    found: list[list[fx.Node]] = [[]]
    for index, node in enumerate(graph.order[:stop]):
        found[-1].append(node)
        crossing = graph.crossing[index]
        # A tensor that stays alone while shapes are read off it is one cut, not several.
        if crossing is not None and (index == 0 or crossing is not graph.crossing[index - 1]):
            found.append([])
    return [stretch for stretch in found if stretch]


def _group(graph: ForwardGraph, stop: int) -> list[_Group]:
    groups: list[_Group] = []
    leading: list[fx.Node] = []
    seen: set[str] = set()
    for stretch in _stretches(graph, stop):
        mixing = [node for node in stretch if graph.mixes(node)]
        # A stretch that only reuses weights has none of its own to freeze.
        weighty = any(name not in seen for node in mixing for name in graph.parameters(node))
        seen.update(name for node in stretch for name in graph.parameters(node))
        if not weighty:
            (groups[-1].nodes if groups else leading).extend(stretch)
            continue
        path = _common_path([graph.paths(node) for node in stretch])
        if groups and path and path == groups[-1].path:
            groups[-1].nodes.extend(stretch)
            continue
        groups.append(_Group(_name(graph, path, mixing, groups), leading + stretch, path))
        leading = []
    if not groups:
        raise FinetuneError(f"{type(graph.module).__name__} has no layer before its head")
    return groups


def _name(graph: ForwardGraph, path: str, mixing: Sequence[fx.Node], groups: Sequence[_Group]) -> str:
    """The deepest module of a stretch, or of its weights, or the first weight's own; each name once."""
    first = graph.parameters(mixing[0])[0]
    name = path or _common_path([graph.paths(node) for node in mixing]) or first.rpartition(".")[0] or first
    taken = {group.name for group in groups}
    numbered = (f"{name}#{i}" for i in range(2, len(groups) + 2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _common_path(stacks: Sequence[Sequence[str]]) -> str:
    """The deepest module that all of the nodes run in; "" for the network itself."""
    common = ""
    for together in zip(*stacks, strict=False):
        if len(set(together)) > 1:
            break
        common = together[0]
    return common


def _tabulate(module: nn.Module, graph: ForwardGraph, groups: Sequence[_Group]) -> LayerTable:
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
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
    for name in sizes:
        owner.setdefault(name, len(groups))
    ends = _ends(graph, groups)
    layers = []
    for number, group in enumerate(groups, start=1):
        parameters = tuple(name for name in sizes if owner[name] == number)
        if not parameters:
            raise FinetuneError(f"internal error: layer {number} ({group.name}) holds no parameter")
        modules = tuple(path for path, span in spans.items() if span == (number, number) and path)
        count = sum(sizes[name] for name in parameters)
        layers.append(Layer(number, group.name, parameters, modules, count, cut=ends[number - 1]))
    if sum(layer.num_parameters for layer in layers) != sum(sizes.values()):
        raise FinetuneError(f"internal error: the layers of {type(module).__name__} do not add up")
    return LayerTable(tuple(layers[:-1]), layers[-1], spans)


def _ends(graph: ForwardGraph, groups: Sequence[_Group]) -> list[str | None]:
    """For each group the node whose value leaves it; None for the last."""
    ends: list[str | None] = []
    index = -1
    for group in groups[:-1]:
        index += len(group.nodes)
        crossing = graph.crossing[index]
        if crossing is None:
            raise FinetuneError(f"internal error: more than one tensor leaves {group.name}")
        ends.append(crossing.name)
    return [*ends, None]
