"""Accuracy and training time of a recipe against the values of one of its keys."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk.figure import COLOURS, GREY, label, new_panels, write_figure
from finetune.errors import FreezeError, printable
from finetune.model.build import describe
from finetune.model.freeze import resolve_freeze
from finetune.model.truncate import Cut, table_before
from finetune.recipe.schema import Recipe
from finetune.recipe.variation import OPTION, Variation
from finetune.strategy.experiments.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FREEZE = re.compile(r"train\.phases\.([0-9]+)\.freeze")
# Numbers whose largest is at least this many times the least are drawn on a logarithmic axis.
DECADE = 10.0
# The longest name of a value below its axis.
TICK_LENGTH = 24


@dataclass(frozen=True)
class Scale:
    """The axis of the values.

    Attributes:
        places: where each value stands.
        title: of the axis.
        kind: ``linear`` or ``log``, where a value's place is its size; ``category``.
    """

    places: tuple[float, ...]
    title: str
    kind: str


def choose_scale(variation: Variation, recipes: Sequence[Recipe]) -> Scale:
    """Choose the axis: the number of frozen layers, a logarithm, or one place after the other.

    Raises:
        FreezeError: a value freezes what the network does not have.
    """
    if found := _FREEZE.fullmatch(variation.key):
        pairs = zip(variation.values, recipes, strict=True)
        counts = [_frozen(recipe, int(found[1]), f"{variation.key}={value}") for value, recipe in pairs]
        body = counts[0][1]
        return Scale(
            tuple(float(k) for k, _ in counts), f"frozen layers, of {body} before the head", "linear"
        )
    numbers = [_number(value) for value in variation.values]
    known = [number for number in numbers if number is not None and number > 0]
    if len(known) == len(numbers) and max(known) >= DECADE * min(known):
        return Scale(tuple(known), printable(variation.key), "log")
    return Scale(tuple(float(at) for at in range(len(numbers))), printable(variation.key), "category")


def to_dict(comparison: Comparison, variation: Variation) -> dict[str, Any]:
    """JSON-ready: the key, the runs with their values, and each run compared with the first."""
    found = comparison.to_dict()
    runs = [{"value": value, **run} for value, run in zip(variation.values, found["runs"], strict=True)]
    first = found["runs"][0]["run"]
    pairs = [pair for pair in found["pairs"] if pair["first"] == first]
    return {"key": variation.key, "runs": runs, "pairs": pairs}


def draw(comparison: Comparison, variation: Variation, scale: Scale, path: Path) -> None:
    """Draw top-1 (per cent) with its 95 % interval, and the training time, against the values.

    Raises:
        UserError, SaveError: as :func:`finetune.disk.figure.write_figure`.
    """
    runs = comparison.runs
    split, n = runs[0].split, runs[0].metrics.n
    titles = [f"on {split}, with the 95 % interval (n = {n:,})", "time of the training, val included"]
    figure, (accuracy, time) = new_panels(9.5, 4.2, titles)
    order = sorted(range(len(runs)), key=lambda place: scale.places[place])
    where = [scale.places[place] for place in order]
    ordered = [runs[place] for place in order]
    top1 = [100 * each.metrics.top1 for each in ordered]
    ends = [
        [100 * (each.metrics.top1 - each.metrics.top1_low) for each in ordered],
        [100 * (each.metrics.top1_high - each.metrics.top1) for each in ordered],
    ]
    joined = scale.kind != "category"
    accuracy.errorbar(
        where, top1, ends, fmt="o-" if joined else "o", color=COLOURS[0], ecolor=GREY, capsize=4, markersize=6
    )
    accuracy.set_ylabel("top-1 accuracy (%)")
    minutes = max(each.seconds for each in runs) > 300
    spent = [each.seconds / 60 if minutes else each.seconds for each in ordered]
    time.plot(where, spent, "s-" if joined else "s", color=COLOURS[1], markersize=6)
    time.set_ylabel("minutes" if minutes else "seconds")
    time.set_ylim(0, 1.1 * max(spent) or 1)
    for axes in (accuracy, time):
        _finish(axes, scale, variation)
    write_figure(figure, path)


def _finish(axes: "Axes", scale: Scale, variation: Variation) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xlabel(scale.title)
    if scale.kind == "log":
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.06 * (max(scale.places) - min(scale.places) or 1) + 0.15
        axes.set_xlim(min(scale.places) - room, max(scale.places) + room)
    names = [label(value, TICK_LENGTH) for value in variation.values]
    if scale.kind == "linear":
        names = [
            name if name == f"{place:g}" else f"{place:g}\n{name}"
            for name, place in zip(names, scale.places, strict=True)
        ]
    if _touch(scale, names):
        names = [name.replace("\n", " = ") for name in names]
        axes.set_xticks(scale.places, names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(scale.places, names)


def _touch(scale: Scale, names: Sequence[str]) -> bool:
    """Whether names beside each other would touch, in a panel of about four inches."""
    places = sorted(map(math.log, scale.places) if scale.kind == "log" else scale.places)
    gaps = [after - before for before, after in pairwise(places) if after > before]
    room = 4 * min(gaps, default=1.0) / ((places[-1] - places[0]) or 1.0)
    longest = max(len(line) for name in names for line in name.split("\n"))
    return 0.085 * longest > room


def _frozen(recipe: Recipe, phase: int, flag: str) -> tuple[int, int]:
    """Return how many layers a phase of ``recipe`` freezes, and how many there are before the head."""
    table, at = describe(recipe.model.backbone), recipe.model.head.at
    if at is not None:
        table = table_before(table, Cut(str(at) if isinstance(at, str) else table.body[at - 1].name, (), 0))
    try:
        return resolve_freeze(recipe.train.phases[phase].freeze, table), len(table.body)
    except FreezeError as error:
        raise FreezeError(f"{OPTION} {printable(flag)}: {error}") from None


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
