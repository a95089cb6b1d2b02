"""Draws a map of features as a figure for a slide."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.disk.figure import COLOURS, GREY, MARKERS, label, legend_below, new_panels, style
from finetune.explain.features.feature_map import FeatureMap
from finetune.explain.features.map_classes import PointStyle, point_styles

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of one panel, in inches.
WIDTH = 6.2
# With more points, each is smaller.
FEW_POINTS = 500
OTHERS = "#b5b5b5"


def draw_map(found: FeatureMap, method: Literal["tsne", "pca"]) -> "Figure":
    """Draw the images in the plane, before fine-tuning on the left and after it on the right.

    A class has a colour and a shape; a wrong prediction of the trained network has a ring.
    """
    titles = [f"{plane.title[0].upper()}{plane.title[1:]}" for plane in found.planes]
    targets, wrong = found.features.targets, found.wrong
    by_class = point_styles(targets, wrong, len(found.classes))
    # The axes are square; below them are a line on the plane, and the classes in as many rows as they take.
    longest = max([24, *(len(label(found.classes[index])) for index in by_class)])
    rows = math.ceil((len(by_class) + 2) / max(1, int(WIDTH * len(titles) / (0.075 * (longest + 7)))))
    height = WIDTH + 0.95 + 0.2 * rows
    figure, panels = new_panels(WIDTH * len(titles), height, titles)
    size = 34 if len(targets) <= FEW_POINTS else 16
    handles: list[Artist] = []
    with style():
        for axes, plane in zip(panels, found.planes, strict=True):
            points = plane.tsne if method == "tsne" else plane.pca
            others = ~np.isin(targets, list(by_class))
            handles = []
            if others.any():
                text = f"{len(np.unique(targets[others])):,} other classes"
                handles.append(
                    axes.scatter(points[others, 0], points[others, 1], s=size / 2, c=OTHERS, lw=0, label=text)
                )
            for index, own_style in by_class.items():
                own = points[targets == index]
                handles.append(_class(axes, own, own_style, size, found.classes[index]))
            if wrong.any():
                ring = axes.scatter(
                    points[wrong, 0], points[wrong, 1], s=3.6 * size, marker="o", facecolors="none", lw=1.1
                )
                ring.set_edgecolor("black")
                ring.set_label("predicted wrongly, after")
                handles.append(ring)
            axes.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[], yticks=[])
            axes.grid(visible=False)
            for spine in axes.spines.values():
                spine.set(visible=True, color="#cccccc")
            axes.set_xlabel(_below(plane.variance, method, plane.agreement), color=GREY)
    legend_below(figure, handles)
    return figure


def _class(axes: "Axes", points: NDArray[np.float64], style: PointStyle, size: float, name: str) -> "Artist":
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        c=COLOURS[style.colour],
        marker=MARKERS[style.marker],
        lw=0.4,
        edgecolors="white",
        label=label(name),
    )


def _below(variance: Sequence[float], method: str, agreement: float) -> str:
    how = "t-SNE of the features before the last layer"
    if method == "pca":
        shares = " and ".join(f"{100 * each:.0f} %" for each in variance)
        how = f"first two principal components: {shares} of the variance"
    return f"{how}\nmost similar other image has the same label: {100 * agreement:.0f} %"
