"""The charts of a report, as matplotlib figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.disk.figure import COLOURS, GREY, MARKERS, label, legend_below, new_chart
from finetune.evaluation.metrics import Metrics
from finetune.reporting.trust import Rate
from finetune.strategy.experiments.spread import Spread
from finetune.training.movement import Movement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability(bins: Sequence[Rate]) -> "Figure":
    """How often predictions are right, against the probability that the network gave them."""
    figure, axes = new_chart(4.6, 4.4, "")
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="as often as it says")
    said = [100 * each.said for each in bins]
    right = [100 * each.share for each in bins]
    spread = [
        [100 * (each.share - each.interval[0]) for each in bins],
        [100 * (each.interval[1] - each.share) for each in bins],
    ]
    axes.errorbar(
        said, right, yerr=spread, fmt="o", capsize=3, color=COLOURS[0], label="this network, 95 % interval"
    )
    most = max(each.n for each in bins)
    sizes = [30 + 220 * each.n / most for each in bins]
    axes.scatter(said, right, s=sizes, color=COLOURS[0], alpha=0.25, linewidths=0)
    axes.set_xlim(0, 103)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("probability that it gives its answer (%)")
    axes.set_ylabel("answers that are right (%)")
    legend_below(figure)
    return figure


def moved(movement: Sequence[Movement], frozen: int) -> "Figure":
    """How far each layer of the body moved, the first at the top; all phases froze the first ``frozen``.

    The head is left out: it is new, so it moves far, and the others would look as if they stood still.
    """
    body = [each for each in movement if not each.is_head]
    figure, axes = new_chart(7.2, 1.0 + 0.21 * len(body), "")
    values = [100 * (each.moved or 0.0) for each in body]
    axes.barh(range(len(body)), values, color=COLOURS[0], height=0.7)
    axes.set_yticks(range(len(body)), [label(f"{each.number}  {each.name}") for each in body])
    most = max(values, default=0.0) or 1.0
    for place, each in enumerate(body):
        if place < frozen or each.moved is None:
            words = "frozen" if place < frozen else "started at zero"
            axes.text(0.01 * most, place, words, va="center", color=GREY, fontsize=8)
    axes.set_xlim(0, 1.05 * most)
    axes.set_ylim(len(body) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_xlabel("distance from the start (% of the length of the starting weights)")
    axes.grid(visible=False, axis="y")
    return figure


def accuracies(
    names: Sequence[str], metrics: Sequence[Metrics], spread: Spread | None = None, *, coloured: bool = False
) -> "Figure":
    """The accuracy of each network with its interval, the first at the top.

    Args:
        spread: of these accuracies; a line shows their mean, and a band its interval.
        coloured: each has its own colour, that of its curves.
    """
    figure, axes = new_chart(7.2, 1.3 + 0.34 * len(names), "")
    if spread is not None:
        if spread.mean_low is not None and spread.mean_high is not None:
            low, high = 100 * max(spread.mean_low, 0.0), 100 * min(spread.mean_high, 1.0)
            axes.axvspan(low, high, color=GREY, alpha=0.15, linewidth=0, label="95 % interval of the mean")
        axes.axvline(100 * spread.mean, color=GREY, linewidth=1.8, label="mean")
    for place, each in enumerate(metrics):
        colour = COLOURS[place % len(COLOURS)] if coloured else COLOURS[0]
        axes.errorbar(
            [100 * each.top1],
            [place],
            xerr=[[100 * (each.top1 - each.top1_low)], [100 * (each.top1_high - each.top1)]],
            fmt=MARKERS[place % len(MARKERS)] if coloured else "o",
            color=colour,
            capsize=3,
            label=None if place or coloured else "one network, 95 % interval",
        )
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy (%)")
    axes.grid(visible=False, axis="y")
    legend_below(figure)
    return figure
