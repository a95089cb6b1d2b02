"""A network without its last layers: cut where one tensor crosses, pooled, with room for a new head.

The cut network is rebuilt from its forward graph (:mod:`torch.fx`), with the modules and the parameter names
of the whole one. A graph is of one mode; the network is traced in train and in eval mode, and must be the
same in both up to the cut, apart from what modules do by themselves (BatchNorm, dropout, stochastic depth).
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, fx, nn

from finetune.errors import UserError
from finetune.model.layers.graph import Tracer, call_of, trace
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.shapes import with_output_shapes
from finetune.model.layers.table import Layer, LayerTable
from finetune.recipe.catalog import suggest
from finetune.recipe.limits import is_whole

KEY = "model.head.at"
_HEAD_NAMES = ("head", "new_head")
_POOL = "_pool"
# Of what comes out of a cut: numbers that a head may take, and axes behind the batch's.
FEATURES = (1, 1 << 26)
AXES = (1, 3)


@dataclass(frozen=True)
class Cut:
    """Where a network is cut, and what is left there.

    Attributes:
        at: name of the first layer that goes.
        pool: the axes that are averaged over, the batch's being 0; none where the value is a vector.
        in_features: length of the vector that the new head gets.
    """

    at: str
    pool: tuple[int, ...]
    in_features: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"at": self.at, "pool": list(self.pool), "in_features": self.in_features}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """Read :meth:`to_dict` back.

        Raises:
            TypeError, KeyError: it is something else.
        """
        at, pool, features = entries["at"], tuple(entries["pool"]), entries["in_features"]
        if (
            not isinstance(at, str)
            or not is_whole(features, FEATURES)
            or not all(is_whole(axis, AXES) for axis in pool)
        ):
            raise TypeError("an entry of the wrong type")
        return cls(at, pool, features)


def plan_cut(
    module: nn.Module, table: LayerTable, at: int | str, image_size: int, in_channels: int = 3
) -> Cut:
    """Settle where to cut, for images ``(in_channels, image_size, image_size)``.

    Args:
        table: the whole network's.
        at: number or name of a layer of the body, not the first.

    A map ``(C, H, W)`` or ``(H, W, C)`` is averaged over its places and tokens ``(T, C)`` over their number;
    a vector stays as it is (of VGG at ``classifier.0``: all 25,088 numbers).

    Raises:
        UserError: it names no layer that the network can be cut at, or the network has no graph to cut.
    """
    if table.body[0].cut is None:
        raise UserError(
            f"{KEY}: {type(module).__name__} cannot be traced, so it cannot be cut. Leave `at` out: the last "
            f"layer is replaced."
        )
    number = _resolve(at, table)
    name = table.body[number - 1].name
    try:
        [(pool, in_features)] = plan_pools(module, table, [number - 1], image_size, in_channels)
    except UserError as error:
        raise UserError(
            f"{KEY}: what reaches {name} is {error}. Cut elsewhere, or change data.image_size."
        ) from None
    return Cut(name, pool, in_features)


def plan_pools(
    module: nn.Module, table: LayerTable, ks: Sequence[int], image_size: int, in_channels: int = 3
) -> list[tuple[tuple[int, ...], int]]:
    """How what leaves each of the layers ``ks`` becomes a vector: the axes to average over, and its length.

    Raises:
        UserError: axes that cannot be told apart; the message says so of the shape, as the end of a sentence.
    """
    at_size = with_output_shapes(module, table, image_size, in_channels)

    @functools.cache
    def at_twice_the_size() -> LayerTable | None:
        with contextlib.suppress(RuntimeError, ValueError, AssertionError):
            return with_output_shapes(module, table, 2 * image_size, in_channels)
        return None

    return [_pool(k, at_size, at_twice_the_size) for k in ks]


def _pool(
    k: int, at_size: LayerTable, at_twice_the_size: Callable[[], LayerTable | None]
) -> tuple[tuple[int, ...], int]:
    shape = at_size.body[k - 1].output_shape or ()
    if len(shape) == 1:
        return (), shape[0]
    if len(shape) == 2:
        return (1,), shape[1]
    if len(shape) == 3:
        other: tuple[int, ...] = shape
        if shape[0] == shape[1] == shape[2] and (larger := at_twice_the_size()) is not None:
            # A cube: in larger images only the channels stay as many.
            other = larger.body[k - 1].output_shape or shape
        # Images are square, so the axis of another length is that of the channels.
        if other[1] == other[2] != other[0]:
            return (2, 3), shape[0]
        if other[0] == other[1] != other[2]:
            return (1, 2), shape[2]
    described = " x ".join(map(str, shape))
    raise UserError(f"{described}, which cannot be told apart into places and channels")


def table_before(table: LayerTable, cut: Cut) -> LayerTable:
    """The whole network's table, with the layers after the cut counted as part of the head."""
    number = _resolve(cut.at, table)
    gone = table.layers[number - 1 :]
    head = replace(
        table.head,
        number=number,
        parameters=tuple(name for layer in gone for name in layer.parameters),
        modules=tuple(path for layer in gone for path in layer.modules),
        num_parameters=sum(layer.num_parameters for layer in gone),
    )
    return LayerTable(table.body[: number - 1], head, table.spans)


def truncate(module: nn.Module, table: LayerTable, cut: Cut) -> tuple[nn.Module, str]:
    """The network up to ``cut``, pooled, with a linear layer at the path that is returned.

    The parameters are the module's own, not copies.

    Raises:
        UserError: before the cut the network does something else in training than in evaluation.
    """
    number = _resolve(cut.at, table)
    name = table.body[number - 2].cut
    graph = trace(module)
    last = next(node for node in graph.nodes if node.name == name)
    _refuse_modes(module, graph, last, cut.at)
    output = next(node for node in graph.nodes if node.op == "output")
    head = next(each for each in _HEAD_NAMES if not _in_use(graph, last, each))
    root = _Root(module)
    root.add_module(head, nn.Linear(cut.in_features, 1))
    root.add_module(_POOL, Pool(cut.pool))
    with graph.inserting_before(output):
        pooled = graph.call_module(_POOL, (last,))
        output.args = (graph.call_module(head, (pooled,)),)
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    short = fx.GraphModule(root, graph, type(module).__name__)
    short.train(module.training)
    return short, head


def truncated_table(module: nn.Module, table: LayerTable, cut: Cut, head_path: str) -> LayerTable:
    """The layers of what :func:`truncate` made of a network of this ``table``, once its head is in place."""
    number = _resolve(cut.at, table)
    parameters = dict(module.named_parameters())
    names = tuple(name for name in parameters if name.startswith(f"{head_path}."))
    modules = tuple(path for path, _ in module.named_modules() if path.split(".")[0] in (head_path, _POOL))
    count = sum(parameters[name].numel() for name in names)
    head = Layer(number, head_path, names, modules, count)
    there = {path for path, _ in module.named_modules()}
    spans = {
        path: (first, min(last, number - 1))
        for path, (first, last) in table.spans.items()
        if path in there and first < number
    }
    spans |= dict.fromkeys(modules, (number, number)) | {"": (1, number)}
    # What works on both sides of the cut is now in one layer, or in fewer.
    body = tuple(
        replace(layer, modules=tuple(p for p, span in spans.items() if p and span == (layer.number,) * 2))
        for layer in table.body[: number - 1]
    )
    return LayerTable(body, head, spans)


class Pool(nn.Module):
    """The average over some axes; none: the value as it is."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, features: Tensor) -> Tensor:
        """One vector an image."""
        return features.mean(self.axes) if self.axes else features


class _Root(nn.Module):
    """All of a network's modules, parameters and buffers under their names, to add to without changing it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)


def _resolve(at: int | str, table: LayerTable) -> int:
    numbers = {layer.name: layer.number for layer in table.body}
    if at in (table.head.number, table.head.name):
        raise UserError(f"{KEY}: {at} is the head, which is replaced in any case. Leave `at` out.")
    number = numbers.get(at) if isinstance(at, str) else at
    if number is None or number > len(table.body):
        hint = suggest(at, numbers) if isinstance(at, str) else ""
        raise UserError(
            f"{KEY}: {at!r} is none of the {len(table.body)} layers of the body (`finetune layers`).{hint}"
        )
    if number < 2:
        raise UserError(f"{KEY}: {at!r} is the first layer, so nothing would be left of the backbone.")
    return number


def _in_use(graph: fx.Graph, last: fx.Node, name: str) -> bool:
    return any(str(node.target).split(".")[0] == name for node in _up_to(graph, last) if node.op in _NAMED)


_NAMED = {"call_module", "get_attr"}


def _up_to(graph: fx.Graph, last: fx.Node) -> list[fx.Node]:
    nodes = list(graph.nodes)
    return nodes[: nodes.index(last) + 1]


def _refuse_modes(module: nn.Module, graph: fx.Graph, last: fx.Node, at: str) -> None:
    with preserve_modes(module):
        module.train()
        try:
            other = Tracer().trace(module)
        except (fx.proxy.TraceError, TypeError) as error:
            raise UserError(f"{KEY}: the network cannot be traced in training ({error}).") from None
    for ours, theirs in zip(_up_to(graph, last), other.nodes, strict=False):
        if call_of(ours) != call_of(theirs):
            raise UserError(
                f"{KEY}: before {at} the network does something in training that it does not in evaluation "
                f"({theirs.format_node()}), so it cannot be cut there."
            )
