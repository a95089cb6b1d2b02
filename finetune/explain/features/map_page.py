"""A map of features as a page: thumbnails on hover and by keyboard, before and after fine-tuning."""

from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import softmax
from finetune.errors import BadImageError, printable
from finetune.explain.features.feature_map import FeatureMap
from finetune.explain.features.map_classes import PointStyle, point_styles
from finetune.page.page import render
from finetune.page.thumbnails import thumbnail

# The side of a map, its margin, and the radius of a point, in units of the drawing.
SIDE, MARGIN = 520, 18
THUMBNAIL = 88
# Shapes of points, in the order of MARKERS: circle, square, triangle, diamond, triangle down, plus and cross.
SHAPES = (
    "M-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0 -9.2 0z",
    "M-4.2 -4.2h8.4v8.4h-8.4z",
    "M0 -5.4L5.2 4.2H-5.2z",
    "M0 -5.6L5.6 0L0 5.6L-5.6 0z",
    "M0 5.4L5.2 -4.2H-5.2z",
    "M-1.8 -5.2h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4v-3.6h3.4z",
    "M0 -2.5L2.9 -5.4L5.4 -2.9L2.5 0L5.4 2.9L2.9 5.4L0 2.5L-2.9 5.4L-5.4 2.9L-2.5 0L-5.4 -2.9L-2.9 -5.4z",
    # A class without a style of its own.
    "M-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0z",
)


def render_map(found: FeatureMap, run: str) -> bytes:
    """Render the page. The same map gives the same bytes.

    Args:
        run: what the page calls the run.
    """
    targets, wrong = found.features.targets, found.wrong
    by_class = point_styles(targets, wrong, len(found.classes))
    places = [{"tsne": _places(each.tsne), "pca": _places(each.pca)} for each in found.planes]
    planes = [
        {
            "title": plane.title,
            "agreement": plane.agreement,
            "variance": plane.variance,
            "points": [
                _appearance(by_class.get(int(target))) | {"x": x, "y": y, "wrong": bool(is_wrong)}
                for (x, y), target, is_wrong in zip(at["tsne"], targets, wrong, strict=True)
            ],
        }
        for plane, at in zip(found.planes, places, strict=True)
    ]
    counts = np.bincount(targets, minlength=len(found.classes))
    mistakes = np.bincount(targets[wrong], minlength=len(found.classes))
    legend = [
        _appearance(style)
        | {
            "index": index,
            "name": found.classes[index],
            "count": int(counts[index]),
            "wrong": int(mistakes[index]),
        }
        for index, style in by_class.items()
    ]
    others = [
        {"index": int(index), "name": found.classes[index]}
        for index in np.flatnonzero(counts)
        if int(index) not in by_class
    ]
    return render(
        "finetune.explain",
        "map.html",
        styles=["map.css"],
        scripts=["map.js"],
        run=run,
        split=found.split,
        count=len(targets),
        total=found.total,
        wrong=int(wrong.sum()),
        shapes=SHAPES,
        planes=planes,
        legend=legend,
        others=others,
        missing=found.missing,
        data=_data(found, places),
    )


def _appearance(style: PointStyle | None) -> dict[str, Any]:
    if style is None:
        return {"look": "other", "shape": len(SHAPES) - 1}
    return {"look": f"c{style.colour}", "shape": style.marker}


def _places(points: NDArray[np.float64]) -> list[list[float]]:
    """Points of 0..1, the first axis to the right and the second up, as places in the drawing."""
    inner = SIDE - 2 * MARGIN
    return [[round(MARGIN + inner * x, 1), round(SIDE - MARGIN - inner * y, 1)] for x, y in points.tolist()]


def _data(found: FeatureMap, places: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page's script reads."""
    probabilities = softmax(found.features.calibrated)
    predicted = found.features.predicted
    return {
        "classes": [printable(each) for each in found.classes],
        "planes": places,
        "images": [
            [
                printable("/".join(PurePath(name).parts[-2:])),
                int(target),
                int(predicted[row]),
                f"{100 * probabilities[row, predicted[row]]:.1f} %",
            ]
            for row, (name, target) in enumerate(
                zip(found.features.names, found.features.targets, strict=True)
            )
        ],
        "thumbnails": [_thumbnail(found, int(index)) for index in found.features.indices],
    }


def _thumbnail(found: FeatureMap, index: int) -> str:
    try:
        return thumbnail(found.features.images.image(index, found.bands, THUMBNAIL), THUMBNAIL)
    except BadImageError:  # gone since it was read
        return ""
