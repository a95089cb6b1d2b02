"""The receptive field of every place of a map: the pixels that its value can depend on.

It is computed exactly, by interval arithmetic over the traced graph: kernel sizes, strides, dilations and
padding of every convolution and pooling, on every path (Araujo et al. 2019 give the closed form for a chain).
Attention, and operations that are not known here, see the whole image.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from finetune.explain.receptive_field.node_rules import sight_of_node
from finetune.explain.receptive_field.sight import Places, Sight, Spans, of_image
from finetune.model.layers.graph import trace
from finetune.model.layers.shapes import on_meta

# The first and the last pixel (exclusive) of rows, then of columns.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """What the places of a map see.

    Attributes:
        rows: for each row of the map, the first pixel row that it sees and the one after the last, inside
            the image: integers (H, 2). None: all see the whole image.
        columns: the same for columns (W, 2).
        image_size: side of the image in pixels.
        gated: values that see the whole image scale or shift the map's, and are left out: the gates of
            squeeze-and-excitation, the statistics of group norm.
    """

    rows: Spans | None
    columns: Spans | None
    image_size: int
    gated: bool = False

    @property
    def whole(self) -> bool:
        """Whether every place sees the whole image, by its operations and not by their number."""
        return self.rows is None

    def box(self, row: int, column: int) -> Box:
        """The pixels that a place sees: first and last row, first and last column, the last exclusive."""
        if self.rows is None or self.columns is None:
            return 0, self.image_size, 0, self.image_size
        (top, bottom), (left, right) = self.rows[row], self.columns[column]
        return int(top), int(bottom), int(left), int(right)

    @property
    def size(self) -> int:
        """The side of the largest field in pixels; the image bounds it."""
        if self.rows is None or self.columns is None:
            return self.image_size
        return int(max((each[:, 1] - each[:, 0]).max() for each in (self.rows, self.columns)))


def receptive_fields(
    module: nn.Module, names: Iterable[str], image_size: int, in_channels: int = 3
) -> dict[str, ReceptiveField]:
    """Compute the receptive fields of values in the traced graph of ``module``.

    Args:
        names: of nodes of the graph (:attr:`Layer.cut`).
        image_size: side of the images in pixels.
        in_channels: channels of the images.

    Raises:
        FinetuneError: the network cannot be traced.
        RuntimeError: the network cannot take images of that size (torch's message).
    """
    shadow = on_meta(module)
    with torch.no_grad():
        seeing = _Seeing(fx.GraphModule(shadow, trace(shadow)), image_size)
        seeing.run(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    return {name: _field(seeing.sights.get(name), image_size) for name in names}


def _field(sight: Sight | None, image_size: int) -> ReceptiveField:
    if not isinstance(sight, Places):
        return ReceptiveField(None, None, image_size)
    rows, columns = sight.spans
    return ReceptiveField(rows, columns, image_size, sight.gated)


class _Seeing(fx.Interpreter):
    """Runs a graph on the meta device and finds what each value sees of the image."""

    def __init__(self, module: fx.GraphModule, image_size: int) -> None:
        super().__init__(module)
        self.module.eval()
        self._image_size = image_size
        self.sights: dict[str, Sight] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder":
            if isinstance(value, Tensor):
                self.sights[n.name] = of_image(self._image_size)
        elif any(each.name in self.sights for each in n.all_input_nodes):
            sight = sight_of_node(n, self._submodule(n), self.env, value, self.sights)
            if sight is not None:
                self.sights[n.name] = sight
        return value

    def _submodule(self, n: fx.Node) -> nn.Module | None:
        return self.fetch_attr(str(n.target)) if n.op == "call_module" else None
