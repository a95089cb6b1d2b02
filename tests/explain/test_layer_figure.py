"""The figure of the layers: equal tiles, text that does not overlap, hostile names."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

import finetune
from finetune.disk.figure import DPI
from finetune.explain.layer_maps import MapLayout
from finetune.explain.layers.figure import MARGIN, WIDTH, draw_layers
from finetune.explain.layers.views import Crop, Depth, Unit
from finetune.explain.receptive_field.fields import ReceptiveField

HOSTILE = "$\\frac{" + "<b>\u202e" + "very long " * 30


def views(depths: int, states: int, name: str = "efficientnet_lite0") -> Any:
    pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
    crops = [Crop("a.jpg", pixels[:, : 64 - 9 * i], (8, 16, 8, 16), i) for i in range(4)]
    maps = [np.eye(7, dtype=np.float32) for _ in range(states)]
    units = [Unit(1000 + i, [crops] * states, maps) for i in range(6 // states)]
    shown = [
        Depth(
            SimpleNamespace(number=100 + i, name=f"blocks.0.layers.{name}.attention"),  # type: ignore[arg-type]
            MapLayout("", "channels_first", 1280, 112, 112),
            ReceptiveField(np.array([[0, 35]]), np.array([[0, 35]]), 224, gated=True),
            0.00123,
            units,
        )
        for i in range(depths)
    ]
    titles = ["before", "after"] if states == 2 else ["untrained"]
    subject = SimpleNamespace(
        name=name,
        about=f"before and after fine-tuning on {name}",
        states=[SimpleNamespace(title=each, weights=name) for each in titles],
        source=SimpleNamespace(classes=tuple(f"{i} {name}" for i in range(7))),
    )
    return SimpleNamespace(
        subject=subject, searched=300, example=(name, pixels), depths=shown,
        filters=[np.random.default_rng(0).random((40, 3, 3, 3)) for _ in range(states)],
        all_filters=768, bands=13,
    )  # fmt: skip


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    return [(each.get_text(), each.get_window_extent(renderer)) for each in figure.axes[0].texts]


def overlaps(found: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    return [(a, b) for (a, one), (b, other) in combinations(found, 2) if one.overlaps(other)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", HOSTILE], ids=["usual", "hostile"])
@pytest.mark.parametrize(("depths", "states"), [(6, 2), (5, 2), (1, 1)])
def test_no_text_is_on_another_or_outside(depths: int, states: int, name: str) -> None:
    figure = draw_layers(views(depths, states, name))
    found = boxes(figure)
    assert overlaps(found) == []
    width, height = figure.bbox.size
    for text, box in found:
        assert box.x0 >= 0, text
        assert box.x1 <= width - MARGIN / 2, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_text_on_text_would_be_found() -> None:
    figure = draw_layers(views(5, 2))
    first = figure.axes[0].texts[0]
    figure.axes[0].text(*first.get_position(), "over it", va="top")
    assert overlaps(boxes(figure)) == [(first.get_text(), "over it")]


def test_the_figure_is_wide_enough_for_a_slide_and_has_no_ticks() -> None:
    figure = draw_layers(views(5, 2))
    [axes] = figure.axes
    assert not axes.axison
    shown = axes.images[0].get_array()
    assert shown is not None
    assert shown.shape[1] == WIDTH >= 1600
    assert 1.4 < shown.shape[1] / shown.shape[0] < 1.8


def test_many_classes_have_no_colours() -> None:
    many = views(3, 1)
    few = draw_layers(many)
    many.subject.source.classes = tuple(f"class {i}" for i in range(1000))
    texts = [each.get_text() for each in draw_layers(many).axes[0].texts]
    assert not [each for each in texts if each.startswith("class ")]
    assert [each for each in few.axes[0].texts if each.get_text().startswith("6 ")]


def test_the_package_has_the_figure() -> None:
    with pytest.raises(finetune.FinetuneError, match="give the images"):
        finetune.draw_layers("resnet18")
