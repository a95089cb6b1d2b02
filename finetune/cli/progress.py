"""How a run is shown: bars on a terminal, a line an epoch elsewhere, curves for TensorBoard on request."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from finetune.cli import output
from finetune.disk.outputs import write_errors_for
from finetune.errors import MissingExtraError


class Console:
    """A :class:`finetune.training.progress.Progress` on stderr."""

    def __init__(self, tensorboard: Path | None = None) -> None:
        """``tensorboard``: where curves are written for it, if they are."""
        self._bars = output.shows_progress()
        self._bar: tqdm[Any] | None = None
        self._curves: Any = None
        self._tensorboard = tensorboard
        self._began: float | None = None
        self._facts: set[tuple[str, str]] = set()

    def started(self, facts: Sequence[tuple[str, str]]) -> None:
        # A run that goes on, and another one like it, have most facts in common.
        for fact, line in zip(facts, output.aligned(facts), strict=True):
            if fact not in self._facts:
                output.note(line)
        self._facts.update(facts)
        if self._tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            # Only now: a run that begins removes the curves of an earlier one.
            self._end_curves()
            with write_errors_for(self._tensorboard):
                self._curves = SummaryWriter(str(self._tensorboard))

    def phase(self, title: str) -> None:
        output.note(f"\n{title}")

    def features(self, done: int, images: int) -> None:
        self.passing("through the frozen layers, once", done, images)

    def passing(self, what: str, done: int, images: int) -> None:
        """So many of the images are through the network; ``what`` for, ends the line that tells of it."""
        if self._began is None:
            self._began = time.monotonic()
        if self._bars and self._bar is None:
            self._bar = tqdm(total=images, desc="features", unit="image", leave=False, file=sys.stderr)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        if done == images:
            self.close()
            seconds, self._began = time.monotonic() - self._began, None
            count = "1 image" if images == 1 else f"{images:,} images"
            output.note(f"features: {count} {what}, {seconds:.1f} s")

    def step(self, epoch: int, done: int, steps: int) -> None:
        if not self._bars:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=steps,
                initial=done - 1,
                desc=f"epoch {epoch}",
                unit="step",
                leave=False,
                file=sys.stderr,
            )
        self._bar.update(done - self._bar.n)

    def epoch(self, entry: Mapping[str, Any], seconds: float, is_best: bool) -> None:
        self.close()
        output.note(
            f"epoch {entry['epoch']:>3}  train loss {entry['train_loss']:.4f}  "
            f"val loss {entry['val_loss']:.4f}  val top-1 {output.percent(entry['val_top1']):>7}  "
            f"{seconds:.1f} s{'  best so far' if is_best else ''}"
        )
        if self._curves is not None and self._tensorboard is not None:
            self._draw(entry, self._tensorboard)

    def _draw(self, entry: Mapping[str, Any], tensorboard: Path) -> None:
        with write_errors_for(tensorboard):
            for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
                self._curves.add_scalar(name.replace("_", "/"), entry[name], entry["epoch"])
            for group, rate in entry["lr"].items():
                self._curves.add_scalar(f"lr/{group}", rate, entry["epoch"])
            self._curves.flush()

    def _end_curves(self) -> None:
        if self._curves is not None:
            # All was flushed as it came; its file may be gone with the run that it was of.
            with contextlib.suppress(OSError):
                self._curves.close()
            self._curves = None

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def end(self) -> None:
        """Nothing more is shown."""
        self.close()
        self._end_curves()


@contextlib.contextmanager
def open_progress(tensorboard: Path | None) -> Iterator[Console]:
    """A console, which also writes TensorBoard event files below ``tensorboard`` if that is given.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """
    if tensorboard is not None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard") from None
    console = Console(tensorboard)
    try:
        yield console
    finally:
        console.end()
