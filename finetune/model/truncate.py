"""Cuts the last layers off a network: everything before the cut, then pooling and a new head.

The network is rebuilt from its forward graph (:mod:`torch.fx`), with the modules and parameter names of the
whole network. A traced graph is valid for one mode. So the network is traced in train and in eval mode, and
both graphs must be equal up to the cut. Modules that depend on the mode themselves (BatchNorm, dropout,
stochastic depth) are allowed.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, fx, nn

from finetune.errors import FinetuneError, UserError
from finetune.model.layers.graph import call_of, trace
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.shapes import with_output_shapes
from finetune.model.layers.table import Layer, LayerTable
from finetune.recipe.catalog import suggest
from finetune.recipe.limits import is_whole

KEY = "model.head.at"
_HEAD_NAMES = ("head", "new_head")
_POOL = "_pool"
# Bounds for the output of a cut: features per image, and axes after the batch axis.
FEATURES = (1, 1 << 26)
AXES = (1, 3)


@dataclass(frozen=True)
class Cut:
    """A place to cut a network, and the shape of the output there.

    Attributes:
        at: name of the first layer that is removed.
        pool: axes to average over, where 0 is the batch axis; empty if the output is a vector.
        in_features: length of the vector that the new head takes.
    """

    at: str
    pool: tuple[int, ...]
    in_features: int

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {"at": self.at, "pool": list(self.pool), "in_features": self.in_features}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """Read the result of :meth:`to_dict`.

        Raises:
            TypeError, KeyError: an entry is missing or has the wrong type.
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
    """Resolve a cut for images ``(in_channels, image_size, image_size)``.

    A map ``(C, H, W)`` or ``(H, W, C)`` is averaged over its places, tokens ``(T, C)`` over the tokens. A
    vector stays a vector (VGG at ``classifier.0``: all 25,088 numbers).

    Args:
        at: number or name of the first layer to remove. The first layer of the body must stay.
        image_size: side of the images in pixels.
        in_channels: channels of the images.

    Raises:
        UserError: the network cannot be cut there, or cannot be traced.
    """
    if table.body[0].cut is None:
        raise UserError(
            f"{KEY}: {type(module).__name__} cannot be traced, so it cannot be cut. Remove `at` to "
            f"replace the last layer."
        )
    number = _resolve(at, table)
    name = table.body[number - 1].name
    try:
        [(pool, in_features)] = plan_pools(module, table, [number - 1], image_size, in_channels)
    except UserError as error:
        raise UserError(
            f"{KEY}: the input of {name} is {error}. Cut elsewhere, or change data.image_size."
        ) from None
    return Cut(name, pool, in_features)


def plan_pools(
    module: nn.Module, table: LayerTable, ks: Sequence[int], image_size: int, in_channels: int = 3
) -> list[tuple[tuple[int, ...], int]]:
    """Choose, for the output of each layer in ``ks``, the axes to average over; with the vector's length.

    Raises:
        UserError: channels and places cannot be distinguished. The message begins with the shape.
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
            # A cube: with larger images, only the number of channels stays the same.
            other = larger.body[k - 1].output_shape or shape
        # Images are square, so the axis of another length is the channel axis.
        if other[1] == other[2] != other[0]:
            return (2, 3), shape[0]
        if other[0] == other[1] != other[2]:
            return (1, 2), shape[2]
    described = " x ".join(map(str, shape))
    raise UserError(f"{described}, where channels and places cannot be distinguished")


def table_before(table: LayerTable, cut: Cut) -> LayerTable:
    """Count the layers after a cut as part of the head, in the table of the whole network."""
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
    """Return the network up to ``cut`` with pooling and a linear layer, and the linear layer's path.

    The parameters are shared with ``module``.

    Raises:
        UserError: before the cut, training and evaluation compute different operations.
    """
    number = _resolve(cut.at, table)
    name = table.body[number - 2].cut
    graph = trace(module)
    nodes = list(graph.nodes)
    last = next(node for node in nodes if node.name == name)
    before = nodes[: nodes.index(last) + 1]
    _check_modes(module, before, cut.at)
    output = next(node for node in nodes if node.op == "output")
    used = {str(node.target).split(".")[0] for node in before if node.op in ("call_module", "get_attr")}
    head = next(each for each in _HEAD_NAMES if each not in used)
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
    """Return the layers of a network that :func:`truncate` cut, with its new head.

    Args:
        module: the cut network.
        cut: the place of the cut.
    """
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
    # A module that worked on both sides of the cut now works in fewer layers.
    body = tuple(
        replace(layer, modules=tuple(p for p, span in spans.items() if p and span == (layer.number,) * 2))
        for layer in table.body[: number - 1]
    )
    return LayerTable(body, head, spans)


class Pool(nn.Module):
    """Averages over some axes. Without axes, returns its input."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, features: Tensor) -> Tensor:
        """Return one vector per image."""
        return features.mean(self.axes) if self.axes else features


class _Root(nn.Module):
    """Contains a network's modules, parameters and buffers by name. Additions do not change the network."""

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
        raise UserError(f"{KEY}: {at} is the head, which is always replaced. Remove `at`.")
    number = numbers.get(at) if isinstance(at, str) else at
    if number is None or number > len(table.body):
        hint = suggest(at, numbers) if isinstance(at, str) else ""
        raise UserError(
            f"{KEY}: {at!r} is not one of the {len(table.body)} layers of the body (`finetune layers`).{hint}"
        )
    if number < 2:
        raise UserError(f"{KEY}: {at!r} is the first layer, so no layer of the backbone would be left.")
    return number


def _check_modes(module: nn.Module, before: Sequence[fx.Node], at: str) -> None:
    with preserve_modes(module):
        try:
            other = trace(module.train(), as_it_stands=True)
        except FinetuneError as error:
            raise UserError(f"{KEY}: the network cannot be traced in training ({error.__cause__}).") from None
    for ours, theirs in zip(before, other.nodes, strict=False):
        if call_of(ours) != call_of(theirs):
            raise UserError(
                f"{KEY}: the network cannot be cut at {at}. Before it, training and evaluation compute "
                f"different operations ({theirs.format_node()})."
            )
