"""Show progress events on stderr: bars on a terminal, one line per epoch elsewhere; TensorBoard curves."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from finetune.api.progress import ProgressEvent, Reporter
from finetune.cli import output
from finetune.disk.outputs import write_errors_for
from finetune.errors import MissingExtraError, printable
from finetune.training.progress import CLASSES

if TYPE_CHECKING:
    from finetune.training.fit import Result

# Columns of a reason, with its heading.
WIDTH = 110
# Columns of the heading of a note.
HEADING = 13


class Console:
    """A callback for progress events.

    ``reporter`` passes it the events of rooms that know no events.
    """

    def __init__(self, tensorboard: Path | None = None) -> None:
        """``tensorboard``: the folder of the TensorBoard curves; None writes none."""
        self.reporter = Reporter(self)
        self._bar: tqdm[Any] | None = None
        self._curves: Any = None
        self._tensorboard = tensorboard
        self._began: float | None = None
        self._facts: set[tuple[str, str]] = set()
        self._shows_classes = False

    def __call__(self, event: ProgressEvent) -> None:
        match event.kind:
            case "start":
                self._start(event)
            case "phase":
                output.note(f"\n{event.message}")
            case "features":
                self._features(event)
            case "step":
                self._advance(event.done, event.total, f"epoch {event.epoch}", "step")
            case "work":
                self._advance(event.done, event.total, None, event.message)
                if event.done == event.total:
                    self._close_bar()
            case "epoch":
                self._epoch(event)
            case "note":
                for heading, sentence in event.facts:
                    output.note(f"{heading:<{HEADING}}{sentence}" if heading else sentence)
            case "advice":
                show_advice(event.facts, event.done, event.total)
                output.note("")

    def _start(self, event: ProgressEvent) -> None:
        # A run that continues, and another one like it, share most facts.
        width = max((len(name) for name, _ in event.facts), default=0)
        self._shows_classes = any(name == CLASSES for name, _ in event.facts)
        for name, value in event.facts:
            if (name, value) not in self._facts:
                output.note(f"{name:<{width}}  {value}")
        self._facts.update(event.facts)
        if self._tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            # Not earlier: a run that begins removes the curves of the run before it.
            self._close_curves()
            with write_errors_for(self._tensorboard):
                self._curves = SummaryWriter(str(self._tensorboard))

    def _features(self, event: ProgressEvent) -> None:
        if self._began is None:
            self._began = time.monotonic()
        self._advance(event.done, event.total, "features", "image")
        if event.done == event.total:
            self._close_bar()
            seconds, self._began = time.monotonic() - self._began, None
            count = "1 image" if event.total == 1 else f"{event.total:,} images"
            output.note(f"features: {count} {event.message}, {seconds:.1f} s")

    def _epoch(self, event: ProgressEvent) -> None:
        self._close_bar()
        entry = event.metrics
        val = ""
        if "val_loss" in entry:  # a refit trains on val, too
            val = f"val loss {entry['val_loss']:.4f}  val top-1 {output.percent(entry['val_top1']):>7}  "
            if self._shows_classes:
                val += f"balanced {output.percent(entry['val_balanced_accuracy']):>7}  "
        output.note(
            f"epoch {event.epoch:>3}  train loss {entry['train_loss']:.4f}  {val}"
            f"{event.seconds:.1f} s{'  best so far' if event.is_best else ''}"
        )
        if self._curves is None or self._tensorboard is None:
            return
        with write_errors_for(self._tensorboard):
            for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
                if name in entry:
                    self._curves.add_scalar(name.replace("_", "/"), entry[name], entry["epoch"])
            for group, rate in entry["lr"].items():
                self._curves.add_scalar(f"lr/{group}", rate, entry["epoch"])
            self._curves.flush()

    def _advance(self, done: int, total: int, title: str | None, unit: str) -> None:
        if not output.shows_progress():
            return
        if self._bar is None:
            # A resumed epoch starts in the middle.
            initial = done - 1 if unit == "step" else 0
            self._bar = tqdm(
                total=total or None, initial=initial, desc=title, unit=unit, leave=False, file=sys.stderr
            )
        self._bar.update(done - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _close_curves(self) -> None:
        if self._curves is not None:
            # Each epoch was flushed. The file may be gone, together with the run that it belonged to.
            with contextlib.suppress(OSError):
                self._curves.close()
            self._curves = None

    def announce(self, run: Path) -> Reporter:
        """Print the directory of one of several runs, and return the reporter for its training."""
        output.note(f"\n{printable(run)}")
        return self.reporter

    def finish(self, result: "Result") -> None:
        """Say so if one of several runs was finished before."""
        if result.already_finished:
            output.note("finished before; nothing was done")

    def close(self) -> None:
        """Remove the bar and close the curves."""
        self._close_bar()
        self._close_curves()


def show_advice(reasons: Sequence[tuple[str, str]], cached: int, images: int) -> None:
    """Print the reasons of an advice, wrapped, and how many images had their features in the cache."""
    width = max(len(heading) for heading, _ in reasons)
    before = ""
    for heading, sentence in reasons:
        first = "" if heading == before else heading
        indent = " " * (width + 2)
        output.data(
            textwrap.fill(sentence, WIDTH, initial_indent=f"{first:<{width}}  ", subsequent_indent=indent)
        )
        before = heading
    if cached:
        output.note(f"features of {cached:,} of {images:,} training images were in the cache")


@contextlib.contextmanager
def open_progress(tensorboard: Path | None = None, *, features_remain: bool = False) -> Iterator[Console]:
    """Yield a console.

    Args:
        tensorboard: also write TensorBoard curves below this folder.
        features_remain: when Ctrl-C or SIGTERM stops the command, say that a repetition uses the cache.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    if tensorboard is not None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from None
    try:
        with contextlib.closing(Console(tensorboard)) as console:
            yield console
    except SystemExit:
        if features_remain:
            output.note("stopped; the same command continues with the features that are in the cache")
        raise
