"""The value that leaves a layer, seen as a map: channels, height, width.

Networks keep places in three forms: as maps ``(N, C, H, W)``, as maps ``(N, H, W, C)`` (Swin), and as tokens
``(N, T, C)`` (ViT), where class and register tokens without a place may come first. A :class:`MapLayout`
converts between such a value and a channels-first map, and a :class:`MappedNetwork` computes what the network
computes while its values pass through such maps, where they can be read and differentiated.
"""

import math
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.errors import FinetuneError, first_line
from finetune.features.cut import segment_graphs, suffix_graph
from finetune.model.layers.graph import ForwardGraph
from finetune.model.layers.modes import preserve_modes
from finetune.model.layers.shapes import node_shapes
from finetune.model.layers.table import LayerTable

# Class, distillation and register tokens of a network; no published one has more.
MOST_PREFIX_TOKENS = 32

Order = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class MapLayout:
    """How the value that leaves a layer is seen as a map.

    Attributes:
        point: the node of the traced graph whose value it is, or the module, in a network without a graph.
        order: of the axes of the value.
        channels: of the map.
        height: of the map, in cells.
        width: of the map, in cells.
        prefix_tokens: tokens without a place, before the others.
    """

    point: str
    order: Order
    channels: int
    height: int
    width: int
    prefix_tokens: int = 0

    def split(self, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the map ``(N, C, H, W)`` of a value, and its prefix tokens ``(N, P, C)`` if it has any."""
        if self.order == "channels_first":
            return value, None
        if self.order == "channels_last":
            return value.permute(0, 3, 1, 2), None
        places = value[:, self.prefix_tokens :]
        as_map = places.transpose(1, 2).reshape(len(value), self.channels, self.height, self.width)
        return as_map, value[:, : self.prefix_tokens] if self.prefix_tokens else None

    def join(self, as_map: Tensor, prefix: Tensor | None) -> Tensor:
        """Return the value of a map and its prefix tokens: the inverse of :meth:`split`."""
        if self.order == "channels_first":
            return as_map
        if self.order == "channels_last":
            return as_map.permute(0, 2, 3, 1)
        places = as_map.flatten(2).transpose(1, 2)
        return places if prefix is None else torch.cat([prefix, places], dim=1)


class MappedNetwork(nn.Module):
    """A network whose values after some layers pass through maps.

    It computes the network's logits from images ``(N, channels, S, S)``, and shares its modules and
    parameters, which must be in eval mode while it runs (:func:`preserve_modes`).

    Attributes:
        numbers: the layers, in execution order.
        layouts: of the maps, in the same order.
        points: identity modules, in the same order. Each gets, and returns, the map ``(N, C, H, W)`` after
            its layer.
    """

    def __init__(self, layouts: Mapping[int, MapLayout]) -> None:
        super().__init__()
        self.numbers = tuple(layouts)
        self.layouts = tuple(layouts.values())
        self.points = nn.ModuleList(nn.Identity() for _ in layouts)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Compute the map ``(N, C, H, W)`` after each of the layers."""
        found: list[Tensor] = []
        handles = [
            point.register_forward_hook(lambda _, __, as_map: found.append(as_map)) for point in self.points
        ]
        try:
            self(images)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _through(self, index: int, value: Tensor) -> Tensor:
        layout = self.layouts[index]
        as_map, prefix = layout.split(value)
        # A copy, because the next layer may begin with an operation in place.
        return layout.join(self.points[index](as_map).clone(), prefix)


class _CutMaps(MappedNetwork):
    """A network that is cut in its graph."""

    def __init__(self, module: nn.Module, table: LayerTable, layouts: Mapping[int, MapLayout]) -> None:
        super().__init__(layouts)
        # The cuts are where the maps are.
        points = {number: layout.point for number, layout in layouts.items()}
        body = tuple(replace(layer, cut=points.get(layer.number, layer.cut)) for layer in table.body)
        moved = replace(table, body=body)
        self._segments = nn.ModuleList(segment_graphs(module, moved, self.numbers))
        self._suffix = suffix_graph(module, moved, self.numbers[-1])

    def forward(self, images: Tensor) -> Tensor:
        value = images
        for index, segment in enumerate(self._segments):
            value = self._through(index, segment(value))
        logits: Tensor = self._suffix(value)
        return logits


class _HookedMaps(MappedNetwork):
    """A network without a graph: hooks on the modules that its layers are named after."""

    def __init__(self, module: nn.Module, layouts: Mapping[int, MapLayout]) -> None:
        super().__init__(layouts)
        self._module = module
        self._layers = [module.get_submodule(layout.point) for layout in self.layouts]

    def forward(self, images: Tensor) -> Tensor:
        def hook(index: int) -> Any:
            return lambda _, __, value: self._through(index, value)

        handles = [layer.register_forward_hook(hook(index)) for index, layer in enumerate(self._layers)]
        try:
            logits: Tensor = self._module(images)
        finally:
            for handle in handles:
                handle.remove()
        return logits


def mapped_network(module: nn.Module, table: LayerTable, layouts: Mapping[int, MapLayout]) -> MappedNetwork:
    """Return ``module`` with its values after some layers passing through maps.

    Args:
        layouts: some entries of :func:`map_layouts`, by the number of the layer, in increasing order.
    """
    numbers = list(layouts)
    if not numbers or numbers != sorted(numbers):
        raise ValueError(f"layer numbers in increasing order, not {numbers}")
    return _CutMaps(module, table, layouts) if _is_traced(table) else _HookedMaps(module, layouts)


def map_layouts(
    module: nn.Module, table: LayerTable, image_size: int, in_channels: int = 3
) -> dict[int, MapLayout]:
    """Find the layers that compute maps of at least two cells, by number, in execution order.

    A layer includes the pooling and flattening after it, so the last layer of most networks ends in a
    vector. Its map is the last one before that.

    Args:
        module: on any device. It does not change.
        image_size: side of the images in pixels.
        in_channels: channels of the images.

    Raises:
        FinetuneError: the network cannot take images of this size.
    """
    try:
        if _is_traced(table):
            shapes = node_shapes(module, image_size, in_channels)
            points = _points_in_graph(module, table)
        else:
            shapes = _module_shapes(module, image_size, in_channels)
            points = {layer.number: [layer.name] for layer in table.body if layer.name in shapes}
    except (RuntimeError, ValueError, AssertionError) as error:
        raise FinetuneError(
            f"the network cannot take images of {image_size} px: {first_line(error)}"
        ) from None
    orders = Counter(order for names in points.values() for name in names if (order := _order(shapes[name])))
    usual: Order = max(orders, key=lambda order: orders[order], default="channels_first")
    sides: set[int] = set()
    earlier: dict[str, set[int]] = {}
    for name, shape in shapes.items():
        earlier[name] = sides
        sides = sides | {shape[1]} if len(shape) == 3 and shape[1] == shape[2] else sides
    found: dict[int, MapLayout] = {}
    in_own_order = hasattr(module, "reroll")
    for number, names in points.items():
        layouts = [_layout(name, shapes[name], usual, earlier[name]) for name in names]
        # Hiera (Ryali et al. 2023) has its tokens in an order of its own, until it rerolls them.
        usable = [each for each in layouts if each and not (each.order == "tokens" and in_own_order)]
        if layout := next(reversed(usable), None):
            found[number] = layout
    return found


def _is_traced(table: LayerTable) -> bool:
    return all(layer.cut is not None for layer in table.body)


def _points_in_graph(module: nn.Module, table: LayerTable) -> dict[int, list[str]]:
    """The nodes of each layer after which only their value is still needed, in execution order."""
    names = list(dict.fromkeys(node.name for node in ForwardGraph(module).crossing if node is not None))
    points, start = {}, 0
    for layer in table.body:
        stop = names.index(str(layer.cut)) + 1
        points[layer.number] = names[start:stop]
        start = stop
    return points


def _layout(point: str, shape: tuple[int, ...], usual: Order, sides: Set[int]) -> MapLayout | None:
    """The layout of a value; None if it is no map of at least two cells.

    Args:
        usual: the order of the network's maps.
        sides: of the square maps that were computed before.
    """
    if len(shape) == 2:
        return _of_tokens(point, *shape, sides=sides)
    if len(shape) != 3:
        return None
    order = usual if shape[0] == shape[1] == shape[2] else _order(shape)
    if order == "channels_first" and shape[1] > 1:
        return MapLayout(point, order, *shape)
    if order == "channels_last" and shape[0] > 1:
        return MapLayout(point, order, shape[2], shape[0], shape[1])
    return None


def _order(shape: tuple[int, ...]) -> Order | None:
    """The order of a map's axes. Images are square, so the axis of another length is the channel axis."""
    if len(shape) == 3 and shape[1] == shape[2] != shape[0]:
        return "channels_first"
    if len(shape) == 3 and shape[0] == shape[1] != shape[2]:
        return "channels_last"
    return None


def _of_tokens(point: str, tokens: int, channels: int, *, sides: Set[int]) -> MapLayout | None:
    """Tokens are the rows of a square, which is as wide as an earlier map, if one fits."""
    fitting = [side for side in sides if 0 <= tokens - side * side <= MOST_PREFIX_TOKENS]
    side = max(fitting, default=math.isqrt(tokens))
    prefix = tokens - side * side
    if side < 2 or prefix > MOST_PREFIX_TOKENS:
        return None
    return MapLayout(point, "tokens", channels, side, side, prefix)


def _module_shapes(module: nn.Module, image_size: int, in_channels: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the modules' output tensors, by path, in execution order, by running the network."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[path] = tuple(output.shape[1:])

        return hook

    handles = [part.register_forward_hook(record(path)) for path, part in module.named_modules() if path]
    device = next(module.parameters()).device
    try:
        with preserve_modes(module), torch.no_grad():
            module.eval()(torch.zeros(1, in_channels, image_size, image_size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return shapes
