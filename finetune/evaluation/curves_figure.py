"""Draw the ROC and the precision-recall curve of one class, with its threshold marked."""

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.decision.working_point import Threshold, in_percent
from finetune.disk.figure import COLOURS, GREY, label, legend_below, new_panels, style
from finetune.errors import UserError, printable
from finetune.evaluation.estimates import Estimate
from finetune.evaluation.one_class import OneClass
from finetune.evaluation.working_point import ThresholdResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Points of a drawn curve, at most: more than the figure has pixels.
POINTS = 2000


def draw_curves(result: ThresholdResult) -> "Figure":
    """Draw both curves of a class on a split, with its threshold if there is one.

    Raises:
        UserError: the split has no image of the class, or no other.
    """
    one, point, split, sweep = result.one, result.point, result.split, result.one.sweep
    name = label(result.class_name, 40)
    if not 0 < one.positives < one.n:
        which = "no image" if not one.positives else "only images"
        raise UserError(
            f"{split} has {which} of '{printable(result.class_name)}': there are no curves to draw."
        )
    titles = [
        f"ROC: area {_area(one.auroc)}",
        f"Precision-recall: area {_area(one.average_precision)}",
    ]
    figure, [roc, pr] = new_panels(9.6, 5.6, titles)
    places = sweep.thinned(POINTS)
    recall, precision, false = (
        100 * each[places] for each in (sweep.recall, sweep.precision, sweep.false_positive_rate)
    )
    with style():
        name = f"'{name}' against the rest on {split}, {one.positives:,} of {one.n:,} images"
        roc.plot([0, *false], [0, *recall], color=COLOURS[0], label=name)
        # Between two thresholds nothing is found in part: average precision is the area of steps.
        pr.step([0, *recall], [precision[0], *precision], where="pre", color=COLOURS[0], label=name)
        share = 100 * one.positives / one.n
        roc.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="chance")
        pr.axhline(share, color=GREY, linestyle=":")
        if point is not None:
            _mark(roc, pr, one, point)
        _frame(roc, "flagged of the rest (%)", "flagged of the class: recall (%)")
        _frame(pr, "recall (%)", "precision (%)")
    legend_below(figure)
    return figure


def _mark(roc: "Axes", pr: "Axes", one: OneClass, point: Threshold) -> None:
    flagged = one.scores >= point.at
    found = int((flagged & one.is_class).sum())
    rest = one.n - one.positives
    text = f"threshold {in_percent(point.at)}"
    if point.goal is not None:
        text += f", chosen on val for a {point.goal.in_words}"
    how: dict[str, Any] = {
        "color": COLOURS[1],
        "linestyle": "none",
        "markersize": 8,
        "zorder": 5,
        "label": text,
    }
    recall = 100 * found / one.positives
    roc.plot([100 * (int(flagged.sum()) - found) / rest], [recall], marker="o", **how)
    if flagged.any():
        pr.plot([recall], [100 * found / int(flagged.sum())], marker="o", **how)


def _frame(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-2, 102)
    axes.set_xticks(np.arange(0, 101, 20))
    axes.set_yticks(np.arange(0, 101, 20))
    axes.set_box_aspect(1)


def _area(area: Estimate | None) -> str:
    return "" if area is None else f"{area.value:.3f} [{area.low:.3f} to {area.high:.3f}]"
