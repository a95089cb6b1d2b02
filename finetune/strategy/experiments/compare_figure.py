"""The learning curves of several runs in one figure."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk.figure import COLOURS, GREY, MARKERS, label, legend_below, new_panels, write_figure
from finetune.strategy.experiments.compare import ComparedRun
from finetune.training.curves import PHASE_LINE, curve, finish_axes, mark_phases, place_of_test

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(runs: Sequence[ComparedRun], labels: Sequence[str], path: Path) -> None:
    """Write :func:`draw_runs` to a file.

    Raises:
        UserError, SaveError: as :func:`finetune.disk.figure.write_figure`.
    """
    write_figure(draw_runs(runs, labels), path)


def draw_runs(runs: Sequence[ComparedRun], labels: Sequence[str]) -> "Figure":
    """Draw top-1 (per cent) and loss against epochs, one colour per run: solid for val, dashed for train.

    A point at the end is the top-1 on test, with its 95 % interval. Of runs that coincide, the earlier have
    wider lines. Dotted vertical lines show where phases begin.
    """
    figure, panels = new_panels(10, 4.8, ["", ""])
    last = max(each.epochs for each in runs)
    for axes, measure in zip(panels, ("top1", "loss"), strict=True):
        for place in range(len(runs)):
            _draw_run(axes, measure, runs, place)
        _draw_phases(axes, runs)
    tests: list[float] = []
    for place, each in enumerate(runs):
        if each.split == "test":
            tests.append(place_of_test(last, len(tests)))
            top1, low, high = (100 * getattr(each.metrics, key) for key in ("top1", "top1_low", "top1_high"))
            panels[0].errorbar(
                [tests[-1]],
                [top1],
                [[top1 - low], [high - top1]],
                fmt=_marker(place),
                color=_colour(place),
                capsize=3,
            )
    finish_axes(panels[0], "top1", last, tests)
    finish_axes(panels[1], "loss", last)
    legend_below(figure, _handles(runs, labels))
    return figure


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _draw_run(axes: "Axes", measure: str, runs: Sequence[ComparedRun], place: int) -> None:
    scale = 100.0 if measure == "top1" else 1.0
    for split, dashes, width in (("train", "--", 1.1), ("val", "-", 1.8)):
        epochs, values = curve(runs[place].history, f"{split}_{measure}")
        # The later runs with the same curve are drawn over this one.
        above = sum(curve(each.history, f"{split}_{measure}")[1] == values for each in runs[place + 1 :])
        step = max(1, len(values) // 10)
        axes.plot(
            epochs,
            [scale * value for value in values],
            dashes,
            color=_colour(place),
            linewidth=width + 3.5 * above,
            alpha=0.5 if above else 1.0,
            marker=_marker(place) if split == "val" or len(values) == 1 else None,
            markersize=4.5 + 5 * above,
            markevery=step,
        )


def _draw_phases(axes: "Axes", runs: Sequence[ComparedRun]) -> None:
    """Mark phases in the colour of their run, or in grey where several runs begin one."""
    several = Counter(epoch for each in runs for epoch in each.history.phases().values())
    for place, each in enumerate(runs):
        for number, epoch in each.history.phases().items():
            shared = several[epoch] > 1
            mark_phases(axes, {number: epoch}, GREY if shared else _colour(place))


def _handles(runs: Sequence[ComparedRun], labels: Sequence[str]) -> "list[Artist]":
    from matplotlib.lines import Line2D

    handles: list[Artist] = []
    for place, name in enumerate(labels):
        handles.append(Line2D([], [], color=_colour(place), marker=_marker(place), label=label(name)))
    plain: dict[str, Any] = {"color": GREY}
    handles += [
        Line2D([], [], **plain, linewidth=1.8, label="val"),
        Line2D([], [], **plain, linewidth=1.0, linestyle="--", label="train, as augmented"),
    ]
    if any(each.split == "test" for each in runs):
        handles.append(
            Line2D([], [], **plain, linestyle="", marker="|", markersize=12, label="test, 95 % interval")
        )
    if any(each.history.phases() for each in runs):
        handles.append(Line2D([], [], **PHASE_LINE, label="a phase begins"))
    return handles
