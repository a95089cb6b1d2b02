"""The plot of a benchmark: one panel a part."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import ticker

from bench.contestants import ACCURACY, SPEED
from bench.report import Results, speeds, succeeded
from bench.spread import Spread

COLOURS = {
    "plain": "#9aa5b1",
    "timm": "#d9a441",
    "fastai": "#b5651d",
    "finetune": "#2f6fb0",
    "ceiling": "#dfe3e8",
}


def draw(results: Results, path: Path) -> None:
    """Write the panels of the parts that were measured as a PNG."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = ((_speed, results.speed), (_accuracy, results.accuracy), (_growth, results.growth))
    panels = [panel for panel, done in parts if any(succeeded(done, name) for name in done)]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6.5 * len(panels), 5.5), squeeze=False)
    for panel, axis in zip(panels, axes[0], strict=True):
        panel(results, axis)
    settings = results.settings
    figure.suptitle(f"{settings['backbone']}, {settings['image_size']} px, {results.machine['cpu']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _speed(results: Results, axis: Any) -> None:
    rows = [each for each in SPEED if speeds(results.speed, each.name)]
    for place, each in enumerate(rows):
        spread = Spread.of(speeds(results.speed, each.name))
        _bar(axis, place, spread, COLOURS[each.tool])
    axis.set_yticks(range(len(rows)), [f"{each.work}: {each.title}" for each in rows], fontsize=8)
    axis.invert_yaxis()
    _logarithmic(axis)
    axis.set_xlabel("images a second (log)")
    axis.set_title("Training: median, least and most")


def _accuracy(results: Results, axis: Any) -> None:
    for number, each in enumerate(ACCURACY):
        for index, outcome in enumerate(succeeded(results.accuracy, each.name)):
            ats = [epoch.at for epoch in outcome.epochs]
            tops = [100 * (epoch.val_top1 or 0.0) for epoch in outcome.epochs]
            label = each.title if index == 0 else None
            axis.plot(ats, tops, marker="o", markersize=3, color=f"C{number}", label=label)
    _logarithmic(axis)
    axis.set_xlabel("seconds from the process's start (log)")
    axis.set_ylabel("val top-1, %")
    axis.legend(fontsize=8)
    axis.set_title("Time to an accuracy, every round")


def _growth(results: Results, axis: Any) -> None:
    points = [point for point in results.points if succeeded(results.growth, point.name)]
    axes = list(dict.fromkeys(point.axis for point in points))
    for place, point in enumerate(points):
        spread = Spread.of(each.epochs[-1].seconds for each in succeeded(results.growth, point.name))
        _bar(axis, place, spread, f"C{axes.index(point.axis)}")
    axis.set_yticks(range(len(points)), [f"{p.value:,} {p.axis}" for p in points], fontsize=8)
    axis.invert_yaxis()
    _logarithmic(axis)
    axis.set_xlabel("seconds of training an epoch (log)")
    axis.set_title("How cost grows: median, least and most")


def _bar(axis: Any, place: int, spread: Spread, colour: str) -> None:
    below, above = spread.median - spread.low, spread.high - spread.median
    axis.barh(place, spread.median, xerr=[[below], [above]], color=colour)


def _logarithmic(axis: Any) -> None:
    """A logarithmic x axis whose few ticks are plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
