"""What a layer is: where the forward graph can be cut, found by symbolic tracing.

A *layer* is the stretch between two points of the forward graph, in execution order, that only one tensor
crosses. Freezing, ``finetune layers``, layer-wise rates, probing and caching stand on this definition:

- The graph is traced in eval mode with :mod:`torch.fx` (Reed et al. 2022), down to the modules that compute
  something themselves. A point is a cut where exactly one value that was computed from the picture is still
  needed, and that value is a tensor. Fetching a parameter does not count.
- A stretch without a convolution, linear map or attention (a norm, activation, pooling, dropout or reshaping;
  adding or concatenating a bare parameter) joins the layer before it; at the very start, the first layer.
- Neighbouring stretches that are steps of one module's own forward, such as the attention and the MLP of a
  transformer block, are one layer.
- A parameter belongs to the layer that first uses it.
- The head is the last linear map or convolution and what follows, together with every parameter that the
  eval-mode graph does not reach (auxiliary classifiers).
"""

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torchvision.ops import StochasticDepth

from finetune.errors import FinetuneError

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_HEADS = (nn.Linear, nn.modules.conv._ConvNd)
_LEAVES = (*_HEADS, *NORMS, nn.modules.dropout._DropoutNd, StochasticDepth)
# Operations of torch that mix channels or positions by a parameter; all others (sums, products, joins, norms,
# reshaping) only carry one. A function from elsewhere that takes a parameter counts as mixing too.
_MIXING = frozenset(
    "linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d embedding matmul "
    "mm mv bmm addmm baddbmm einsum tensordot multi_head_attention_forward scaled_dot_product_attention".split()
)
_GIVES_NO_TENSOR = frozenset({"size", "dim", "numel", "chunk", "split", "tensor_split", "unbind"})


@dataclass(frozen=True)
class Layer:
    """One layer, or the head.

    Attributes:
        number: from 1; the head's is one more than the last layer's.
        name: the deepest module that holds it, such as ``layer1.0``.
        parameters: names of the parameters that belong to it.
        modules: paths of the modules that work in this layer alone.
        num_parameters: how many numbers its parameters hold.
        output_shape: of one picture, without the batch dimension; None until :func:`with_output_shapes`.
        cut: name of the graph node whose value leaves the layer (of :func:`trace`); None for the head.
    """

    number: int
    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    num_parameters: int
    output_shape: tuple[int, ...] | None = None
    cut: str | None = None


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network in execution order, and its head.

    ``spans`` tells for every module that runs in eval mode the first and last layer it works in.
    """

    body: tuple[Layer, ...]
    head: Layer
    spans: Mapping[str, tuple[int, int]] = field(repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The body's layers, then the head."""
        return (*self.body, self.head)


class Tracer(fx.Tracer):
    """Records calls of convolutions, linear maps, norms, dropout and their kin, whoever defines them."""

    # Without this, a value computed from a buffer is stored on the traced module as a constant.
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A leaf is one of torch's own modules, a subclass of those named above, or stochastic depth."""
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module) -> fx.Graph:
    """The forward graph of a network in eval mode; the network's own modes are left as they were.

    Raises:
        FinetuneError: the forward depends on its input's values, so that there is no one graph.
    """
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        return Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError) as error:
        name = type(module).__name__
        raise FinetuneError(f"{name} cannot be traced, so it has no numbered layers: {error}") from error
    finally:
        for each, training in modes.items():
            each.training = training


def find_layers(module: nn.Module, head_path: str | None = None) -> LayerTable:
    """The layers of a network, by the definition at the top of this module.

    Args:
        module: any network of one picture input; the meta device will do. It is left unchanged.
        head_path: the module that the head begins with, where that is known (a new head may begin with
            dropout, which would otherwise join the body); None: the last linear map or convolution.

    Raises:
        FinetuneError: the network cannot be traced, has no head that one tensor leads to, or has no layer
            before it.
    """
    graph = _Graph(module, trace(module))
    start, head_name = graph.find_head(head_path)
    groups = _group(graph, start)
    groups.append(_Group(head_name, graph.order[start:]))
    return _tabulate(module, graph, groups)


def with_output_shapes(module: nn.Module, table: LayerTable, image_size: int) -> LayerTable:
    """The table with each ``output_shape``, for one RGB picture of ``image_size`` pixels a side.

    Runs on the meta device: no memory, no arithmetic, whatever device the network is on.

    Raises:
        RuntimeError: the network cannot take pictures of that size (torch's own message).
    """
    # Copying with this memo gives meta parameters without holding the real ones twice.
    own = [*module.parameters(), *module.buffers()]
    shadow = copy.deepcopy(module, {id(tensor): _on_meta(tensor) for tensor in own})
    with torch.no_grad():
        recorder = _ShapeRecorder(fx.GraphModule(shadow, trace(shadow)))
        output = recorder.run(torch.empty(1, 3, image_size, image_size, device="meta"))
    shapes = recorder.shapes
    body = tuple(replace(layer, output_shape=shapes[layer.cut or ""]) for layer in table.body)
    return replace(table, body=body, head=replace(table.head, output_shape=tuple(output.shape[1:])))


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor, without the batch dimension."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.module.eval()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n.name] = tuple(value.shape[1:])
        return value


@dataclass
class _Group:
    """Nodes that will be one layer; ``path`` is the module whose forward they are steps of."""

    name: str
    nodes: list[fx.Node]
    path: str = ""


class _Graph:
    """A traced graph, with what the definition of a layer asks of it.

    ``order`` holds the nodes computed from the picture, in execution order.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self.canonical = {id(parameter): name for name, parameter in module.named_parameters()}
        self.order: list[fx.Node] = []
        # Parameters that a value not computed from the picture was made of, such as an expanded class token.
        self.carried: dict[fx.Node, tuple[str, ...]] = {}
        # Nodes not computed from the picture, by the first node that is and that needs them.
        self.sources: dict[fx.Node, list[fx.Node]] = {}
        from_input: set[fx.Node] = set()
        for node in graph.nodes:
            if node.op == "placeholder" or any(arg in from_input for arg in node.all_input_nodes):
                from_input.add(node)
                self.order.append(node)
            else:
                self.carried[node] = self._direct(node) + self._by_arguments(node)
        claimed: set[fx.Node] = set()
        for node in self.order:
            self.sources[node] = self._claim(node, claimed)
        position = {node: index for index, node in enumerate(self.order)}
        last_use = [max((position[user] for user in node.users), default=-1) for node in self.order]
        # crossing[i]: the value that alone is needed after order[i], if it is one tensor.
        self.crossing: list[fx.Node | None] = []
        live: list[int] = []
        for index in range(len(self.order)):
            live = [each for each in (*live, index) if last_use[each] > index]
            alone = self.order[live[0]] if len(live) == 1 else None
            self.crossing.append(alone if alone is not None and _is_tensor(alone) else None)

    def parameters(self, node: fx.Node) -> tuple[str, ...]:
        """Names of the parameters that a node computes with, without those of the nodes before it."""
        return self._direct(node) + self._by_arguments(node)

    def mixes(self, node: fx.Node) -> bool:
        """Whether the node is weight-bearing: a convolution, linear map, attention or the like."""
        if node.op == "call_module":
            leaf = self.module.get_submodule(str(node.target))
            light = isinstance(leaf, NORMS) or leaf.__class__.__module__ == "torch.nn.modules.activation"
            # Attention lives among the activations.
            light = light and not isinstance(leaf, nn.MultiheadAttention)
            return bool(self._direct(node)) and not light
        if not self._by_arguments(node):
            return False
        if node.op == "call_method":
            return str(node.target) in _MIXING
        if node.op == "call_function":
            origin = getattr(node.target, "__module__", None) or "builtins"
            foreign = origin.split(".")[0] not in {"torch", "_operator", "builtins"}
            return foreign or getattr(node.target, "__name__", "") in _MIXING
        return False

    def paths(self, node: fx.Node) -> list[str]:
        """Paths of the modules that are running when the node does, from the outermost inwards."""
        return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]

    def find_head(self, head_path: str | None) -> tuple[int, str]:
        """Where in ``order`` the head starts, and its path."""
        if head_path is not None:
            starts = [i for i, node in enumerate(self.order) if head_path in self.paths(node)]
            start = starts[0] if starts else None
        else:
            start = next((i for i in reversed(range(len(self.order))) if self._may_be_head(i)), None)
        if start is None:
            raise FinetuneError(f"{type(self.module).__name__} has no linear layer or convolution as its head")
        path = head_path or str(self.order[start].target)
        if start == 0 or self.crossing[start - 1] is None:
            raise FinetuneError(f"the head {path} cannot be cut off: more than one tensor leads past or into it")
        return start, path

    def _may_be_head(self, index: int) -> bool:
        node = self.order[index]
        return node.op == "call_module" and isinstance(self.module.get_submodule(str(node.target)), _HEADS)

    def _direct(self, node: fx.Node) -> tuple[str, ...]:
        if node.op == "call_module":
            own: Iterable[nn.Parameter] = self.module.get_submodule(str(node.target)).parameters()
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(self.module)
            own = [value] if isinstance(value, nn.Parameter) else []
        else:
            own = []
        return tuple(self.canonical[id(parameter)] for parameter in own)

    def _by_arguments(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(name for arg in node.all_input_nodes for name in self.carried.get(arg, ()))

    def _claim(self, node: fx.Node, claimed: set[fx.Node]) -> list[fx.Node]:
        found = []
        waiting = [arg for arg in node.all_input_nodes if arg in self.carried and arg not in claimed]
        while waiting:
            source = waiting.pop()
            if source not in claimed:
                claimed.add(source)
                found.append(source)
                waiting.extend(source.all_input_nodes)
        return found


def _is_tensor(node: fx.Node) -> bool:
    """Whether a value is one tensor, not a shape, a number or a tuple of tensors."""
    if str(node.target) in _GIVES_NO_TENSOR or getattr(node.target, "__name__", "") in _GIVES_NO_TENSOR:
        return False
    taken_apart = (user for user in node.users if user.target is operator.getitem)
    return not any(isinstance(user.args[1], int) for user in taken_apart)


def _stretches(graph: _Graph, stop: int) -> list[list[fx.Node]]:
    """The nodes before ``order[stop]``, cut wherever one tensor crosses."""
    found: list[list[fx.Node]] = [[]]
    for index, node in enumerate(graph.order[:stop]):
        found[-1].append(node)
        crossing = graph.crossing[index]
        # A tensor that stays alone while shapes are read off it is one cut, not several.
        if crossing is not None and (index == 0 or crossing is not graph.crossing[index - 1]):
            found.append([])
    return [stretch for stretch in found if stretch]


def _group(graph: _Graph, stop: int) -> list[_Group]:
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
        name = path or _common_path([graph.paths(node) for node in mixing]) or graph.parameters(mixing[0])[0]
        taken = {group.name for group in groups}
        if name in taken:
            name = next(f"{name}#{i}" for i in range(2, len(groups) + 2) if f"{name}#{i}" not in taken)
        groups.append(_Group(name, leading + stretch, path))
        leading = []
    if not groups:
        raise FinetuneError(f"{type(graph.module).__name__} has no layer before its head")
    return groups


def _common_path(stacks: Sequence[Sequence[str]]) -> str:
    """The deepest module that all of the nodes run in; "" for the network itself."""
    common = ""
    for together in zip(*stacks, strict=False):
        if len(set(together)) > 1:
            break
        common = together[0]
    return common


def _tabulate(module: nn.Module, graph: _Graph, groups: Sequence[_Group]) -> LayerTable:
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


def _ends(graph: _Graph, groups: Sequence[_Group]) -> list[str | None]:
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
