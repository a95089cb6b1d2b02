"""The curves of a run: accuracy and loss per epoch on train and val, its phases, its best epoch, its test."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk.atomic import write_atomic
from finetune.disk.figure import COLOURS, GREY, figure_bytes, label, legend_below, new_panels
from finetune.disk.regular import TABLE_BYTES, read_regular_text
from finetune.errors import CheckpointError, printable
from finetune.training.run.files import CURVES, METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("finetune")

Entry = Mapping[str, Any]

# A loss this many times as high as most others gets a logarithmic axis.
EXPLODED = 20.0
PHASE_LINE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}


@dataclass(frozen=True)
class History:
    """What ``metrics.jsonl`` says of a run.

    Attributes:
        epochs: the lines of its epochs.
        test: the line of its test; None if the run has no test split, or is not finished.
    """

    epochs: tuple[Entry, ...]
    test: Entry | None = None

    @classmethod
    def read(cls, run: Path) -> "History":
        """Read the metrics of ``run``; a run that has none has no epochs.

        Raises:
            CheckpointError: they cannot be read.
        """
        lines = read_lines(run / METRICS)
        tests = [entry for entry in lines if entry.get("split") == "test"]
        return cls(tuple(entry for entry in lines if "val_top1" in entry), tests[-1] if tests else None)

    def phases(self) -> dict[int, int]:
        """Return the first epoch of each phase that follows another, by the phase's number."""
        first: dict[int, int] = {}
        for entry in self.epochs:
            first.setdefault(entry["phase"], entry["epoch"])
        return dict(list(first.items())[1:])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a ``.jsonl`` file of a run; a missing one has no lines.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        text = read_regular_text(path, TABLE_BYTES) if path.is_file() else ""
        return [dict(json.loads(line)) for line in text.splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error}).") from None


def write_curves(run: Path, title: str, freezes: Sequence[object], best_epoch: int) -> None:
    """Draw the curves of a run into its directory. A failure is a warning, since the run itself is whole.

    Args:
        title: what was trained.
        freezes: ``freeze`` of each phase.
        best_epoch: the epoch of the best checkpoint.
    """
    try:
        history = History.read(run)
        if history.epochs:
            write_atomic(run / CURVES, figure_bytes(draw_curves(history, title, freezes, best_epoch)))
    except Exception as error:
        log.warning("%s: the curves could not be drawn (%s)", printable(run), error)


def draw_curves(history: History, title: str, freezes: Sequence[object], best_epoch: int) -> "Figure":
    """Draw accuracy (per cent) and loss per epoch. Arguments as :func:`write_curves`."""
    figure, panels = new_panels(9, 4.2, [title, ""])
    epochs = [entry["epoch"] for entry in history.epochs]
    best = next((entry for entry in history.epochs if entry["epoch"] == best_epoch), None)
    last = history.epochs[-1]
    for axes, measure, scale in zip(panels, ("top1", "loss"), (100.0, 1.0), strict=True):
        for split, colour, marker in (("train", COLOURS[4], "s"), ("val", COLOURS[0], "o")):
            # A linear head that a probe saved has no results on train.
            where, values = curve(history, f"{split}_{measure}")
            if not values:
                continue  # a probe knows nothing of train
            axes.plot(
                where,
                [scale * value for value in values],
                color=colour,
                linestyle="--" if split == "train" else "-",
                # Many markers would hide the line.
                marker=marker if len(values) <= 40 else None,
                label="train, as augmented" if split == "train" else f"val (n = {last['val_n']:,})",
            )
        if best is not None:
            axes.plot(
                [best_epoch],
                [scale * best[f"val_{measure}"]],
                "o",
                markersize=11,
                markerfacecolor="none",
                markeredgecolor=COLOURS[0],
                markeredgewidth=1.6,
                label=f"best epoch on val: {best_epoch}",
            )
        mark_phases(axes, history.phases(), GREY)
    if history.test is not None:
        top1, low, high = (100 * history.test[f"test_top1{end}"] for end in ("", "_low", "_high"))
        at = place_of_test(epochs[-1])
        panels[0].errorbar(
            [at],
            [top1],
            [[top1 - low], [high - top1]],
            fmt="D",
            color=COLOURS[1],
            capsize=4,
            label=f"test of that epoch, 95 % interval ({_counted(history.test)})",
        )
        finish_axes(panels[0], "top1", epochs[-1], [at])
    else:
        finish_axes(panels[0], "top1", epochs[-1])
    finish_axes(panels[1], "loss", epochs[-1])
    for number in history.phases():
        name = f", {_freeze_in_words(freezes[number])}" if number < len(freezes) else ""
        panels[0].plot([], [], **PHASE_LINE, label=f"phase {number + 1} begins{name}")
    legend_below(figure)
    return figure


def curve(history: History, key: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have the entry ``key``, and its values."""
    own = [entry for entry in history.epochs if key in entry]
    return [entry["epoch"] for entry in own], [entry[key] for entry in own]


def _counted(test: Entry) -> str:
    groups = f" in {test['test_groups']:,} groups" if "test_groups" in test else ""
    return f"n = {test['test_n']:,}{groups}"


def place_of_test(last: int, number: int = 0) -> float:
    """Return where the result on test stands, after the ``last`` epoch; ``number`` counts results."""
    return last + 0.07 * max(last, 4) * (number + 1)


def mark_phases(axes: "Axes", first: Mapping[int, int], colour: str) -> None:
    """Draw a vertical line where a phase begins, with its number (from 1) above.

    Args:
        first: the first epoch of each phase, by its number from 0.
    """
    for number, epoch in first.items():
        axes.axvline(epoch - 0.5, **PHASE_LINE | {"color": colour})
        axes.text(
            epoch - 0.5,
            1.01,
            str(number + 1),
            color=colour,
            fontsize=8,
            transform=axes.get_xaxis_transform(),
            horizontalalignment="center",
            verticalalignment="bottom",
        )


def finish_axes(axes: "Axes", measure: str, last: int, tests: Sequence[float] = ()) -> None:
    """Label the axes of a curve, and choose limits that show all of it.

    Args:
        measure: top1 (in per cent) or loss.
        last: the last epoch.
        tests: where results on test stand.
    """
    from matplotlib.ticker import MaxNLocator

    low, high = axes.dataLim.intervaly
    if measure == "top1":
        # At least five points, so that small differences look small.
        room = max(0.05 * (high - low), (5 - (high - low)) / 2, 1.0)
        axes.set_ylim(max(low - room, -1), min(high + room, 101))
        axes.set_ylabel("top-1 accuracy (%)")
    else:
        axes.set_ylabel("loss (cross-entropy)")
        if _exploded(axes):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.08 * high)
    axes.set_xlabel("epoch")
    ticks = [at for at in MaxNLocator(8, integer=True, min_n_ticks=1).tick_values(1, last) if 1 <= at <= last]
    names = [f"{at:.0f}" for at in ticks]
    if tests:
        ticks, names = [*ticks, sum(tests) / len(tests)], [*names, "test"]
        axes.axvspan(last + 0.035 * max(last, 4), max(tests) + 0.04 * max(last, 4), color="#f3f3f3", zorder=0)
    axes.set_xticks(ticks, names)
    side = 0.04 * max(last, 4)
    axes.set_xlim(1 - side, max([last, *tests]) + side)


def _exploded(axes: "Axes") -> bool:
    """Whether a few values of the loss are so high that the others would look like zero."""
    import numpy as np

    lines = [np.asarray(line.get_ydata(), np.float64) for line in axes.lines if line.get_linestyle() != ":"]
    values = np.concatenate([np.zeros(0), *lines])
    return bool(len(values) and values.min() > 0 and values.max() > EXPLODED * max(np.median(values), 1.0))


def _freeze_in_words(freeze: object) -> str:
    """``nothing frozen``, ``backbone frozen``, ``3 layers frozen``, ``frozen to layer3.1``."""
    if freeze in (0, "none"):
        return "nothing frozen"
    if freeze == "backbone":
        return "backbone frozen"
    if isinstance(freeze, int):
        return f"{freeze} layer{'s' if freeze > 1 else ''} frozen"
    return f"frozen up to {label(str(freeze))}"
