"""Traces the forward graph of a network, and answers what the definition of a layer needs to know."""

import inspect
import operator
from collections.abc import Iterable
from typing import Any

from torch import fx, nn
from torchvision.ops import StochasticDepth

from finetune.errors import FinetuneError
from finetune.model.layers.modes import preserve_modes

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
_HEADS = (nn.Linear, nn.modules.conv._ConvNd)
_LEAVES = (*_HEADS, *NORMS, nn.modules.dropout._DropoutNd, StochasticDepth)
# Operations of torch that mix channels or positions with a parameter. All others (sums, products,
# concatenation, norms, reshaping) do not. A function from elsewhere that takes a parameter counts as mixing.
_MIXING = frozenset(
    {"linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"}
    | {"conv_transpose3d", "embedding", "matmul", "mm", "mv", "bmm", "addmm", "baddbmm", "einsum"}
    | {"tensordot", "multi_head_attention_forward", "scaled_dot_product_attention"}
)
_GIVES_NO_TENSOR = frozenset({"size", "dim", "numel", "chunk", "split", "tensor_split", "unbind"})


class _Tracer(fx.Tracer):
    """Records convolutions, linear layers, norms and dropout as single calls, also subclasses elsewhere."""

    # Otherwise a value computed from a buffer becomes a constant of the traced module.
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Treat torch's own modules, subclasses of ``_LEAVES`` and stochastic depth as leaves."""
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module, *, as_it_stands: bool = False) -> fx.Graph:
    """Trace the forward graph of a network in eval mode, and restore the modules' modes.

    Tracing fixes the value of ``self.training``, so a graph is valid for one mode.

    Args:
        as_it_stands: trace each module in its current mode.

    Raises:
        FinetuneError: the forward depends on the values of its input.
    """
    with preserve_modes(module):
        if not as_it_stands:
            module.eval()
        try:
            return _Tracer().trace(module, concrete_args=_defaults(module))
        except (fx.proxy.TraceError, TypeError) as error:
            name = type(module).__name__
            raise FinetuneError(f"{name} cannot be traced, so it has no numbered layers: {error}") from error


def call_of(node: fx.Node) -> tuple[str, ...]:
    """Describe the operation of a node, to compare two graphs of one network.

    The mode is left out if it makes no difference, because nothing is dropped.
    """
    arguments: dict[str, Any] = dict(node.kwargs)
    chances = [value for name, value in arguments.items() if name == "p" or name.endswith("dropout")]
    if chances and not any(chances):
        arguments.pop("training", None)
    return (node.op, str(node.target), str(node.args), str(arguments))


def _defaults(module: nn.Module) -> dict[str, Any] | None:
    """Default values of the forward's further arguments. Without them, tracing would pass values."""
    given = inspect.signature(module.forward).parameters.values()
    return {each.name: each.default for each in given if each.default is not each.empty} or None


class ForwardGraph:
    """A traced graph, divided into nodes that depend on the image and nodes that do not.

    Attributes:
        order: the nodes that depend on the image, in execution order.
        crossing: for each node of ``order``, the only value that is still needed after it, if it is a tensor.
        sources: for each node of ``order``, the other nodes that it is the first to use.

    Raises:
        FinetuneError: the network cannot be traced.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.canonical = {id(parameter): name for name, parameter in module.named_parameters()}
        self.order: list[fx.Node] = []
        # Parameters behind a value that does not depend on the image, such as an expanded class token.
        self.carried: dict[fx.Node, tuple[str, ...]] = {}
        self.sources: dict[fx.Node, list[fx.Node]] = {}
        from_input: set[fx.Node] = set()
        for node in trace(module).nodes:
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
        self.crossing: list[fx.Node | None] = []
        live: list[int] = []
        for index in range(len(self.order)):
            live = [each for each in (*live, index) if last_use[each] > index]
            alone = self.order[live[0]] if len(live) == 1 else None
            self.crossing.append(alone if alone is not None and _is_tensor(alone) else None)

    def parameters(self, node: fx.Node) -> tuple[str, ...]:
        """Names of the parameters that a node uses directly."""
        return self._direct(node) + self._by_arguments(node)

    def mixes(self, node: fx.Node) -> bool:
        """Whether the node mixes with weights: a convolution, linear layer, attention or the like."""
        if node.op == "call_module":
            leaf = self.modules[str(node.target)]
            light = isinstance(leaf, NORMS) or leaf.__class__.__module__ == "torch.nn.modules.activation"
            # torch defines attention among the activations.
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
        """Paths of the modules that the node runs in, outermost first."""
        return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]

    def find_head(self, head_path: str | None) -> tuple[int, str]:
        """Find the index in ``order`` where the head starts, and its path."""
        if head_path is not None:
            starts = [i for i, node in enumerate(self.order) if head_path in self.paths(node)]
            start = starts[0] if starts else None
        else:
            start = next((i for i in reversed(range(len(self.order))) if self._may_be_head(i)), None)
        if start is None:
            raise FinetuneError(
                f"{type(self.module).__name__} has no linear layer or convolution as its head"
            )
        path = head_path or str(self.order[start].target)
        if start == 0 or self.crossing[start - 1] is None:
            raise FinetuneError(
                f"the head {path} cannot be cut off: more than one tensor leads into it or past it"
            )
        return start, path

    def _may_be_head(self, index: int) -> bool:
        node = self.order[index]
        return node.op == "call_module" and isinstance(self.modules[str(node.target)], _HEADS)

    def _direct(self, node: fx.Node) -> tuple[str, ...]:
        if node.op == "call_module":
            own: Iterable[nn.Parameter] = self.modules[str(node.target)].parameters()
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
    """Whether a value is one tensor: not a shape, a number or a tuple."""
    if str(node.target) in _GIVES_NO_TENSOR or getattr(node.target, "__name__", "") in _GIVES_NO_TENSOR:
        return False
    taken_apart = (user for user in node.users if user.target is operator.getitem)
    return not any(isinstance(user.args[1], int) for user in taken_apart)
