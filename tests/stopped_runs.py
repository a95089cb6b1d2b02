"""Training runs that stop at a chosen check of the signals, and the files that a resume must reproduce."""

import hashlib
import signal
from pathlib import Path

import pytest
import safetensors.torch
import torch

import tiny
from finetune.errors import StoppedError
from finetune.recipe.schema import Recipe
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.run.signals import Signals

# Images per split and class: two steps per epoch, one batch for val and one for test.
COUNTS = {"train": (8, 4), "val": (3, 3), "test": (3, 3)}
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stops:
    """Simulates a signal at the ``at``-th check, counted from the start of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.at, self.number = 0, 0, signal.SIGTERM
        check = Signals.check

        def counted(signals: Signals) -> None:
            self.made += 1
            if self.made == self.at:
                signals.received = self.number
            check(signals)

        monkeypatch.setattr(Signals, "check", counted)

    def set(self, at: int) -> None:
        """Stop at check ``at`` of the next run; 0: never."""
        self.made, self.at, self.number = 0, at, NUMBERS[at % len(NUMBERS)]

    def finishes(self, recipe: Recipe, run: Path, at: int = 0, resume: bool = False) -> bool:
        """Train or resume with a stop at check ``at``. Returns whether the run finished before that check."""
        self.set(at)
        with RunDir.open(run, resume=resume) as opened:
            try:
                fit(recipe, opened, device="cpu", continuation=Continuation(resume=resume))
            except StoppedError as stopped:
                code = stopped.exit_code
            else:
                assert self.made < at or not at, "the run ignored the stop"
                return True
        assert code == 128 + self.number
        return False


def draw_source(root: Path, counts: dict[str, tuple[int, int]]) -> Path:
    """Create a folder of images, with weights for the source network beside it. Returns the folder."""
    folder = tiny.draw_images(root / "images", counts)
    torch.manual_seed(1)
    weights = tiny.TinyNetwork(1000).state_dict()
    safetensors.torch.save_file(weights, folder.with_name("images.safetensors"))
    return folder


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of weights, optimizer state, position and metrics, by file name."""
    files = (*run.glob("metrics.jsonl"), *run.glob("checkpoints/best/*"), *run.glob("checkpoints/last/*"))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
