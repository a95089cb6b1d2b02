"""What a contestant is told and what it tells: JSON, one way in a file, the other way line by line.

Free of torch: the process that starts the contestants stays small, because on Linux a child's peak memory
begins at its parent's.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """The work of a contestant that is not finetune's own command.

    ``folder`` holds ``train`` and ``val`` with a folder a class, ``start`` is what :mod:`bench.network` left:
    the weights that all begin with. ``work`` is one of :data:`bench.contestants.WORKS`. ``workers`` are
    loader processes. ``judge``: look at val after each epoch. ``mixed``: in mixed precision where the
    hardware computes it.
    """

    folder: str
    start: str
    backbone: str
    weights: str
    work: str
    classes: int
    images: int
    image_size: int
    batch_size: int
    epochs: int
    workers: int
    seed: int
    judge: bool
    mixed: bool = True

    @property
    def steps(self) -> int:
        """Optimizer steps of all epochs together."""
        return self.epochs * math.ceil(self.images / self.batch_size)

    def write(self, path: Path) -> Path:
        """Keep the job in a file, whose path is what the contestant's command line takes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """What :meth:`write` kept."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Epoch:
    """One epoch: its training steps' seconds and images, their mean loss, and val's top-1 if it was judged.

    ``at``: seconds from the process's start until the epoch was over and told.
    """

    seconds: float
    images: int
    loss: float | None
    val_top1: float | None
    at: float


def tell(**facts: Any) -> None:
    """A line for the process that started this one."""
    print(json.dumps(facts), flush=True)


def job_of_this_process() -> Job:
    """The job that the command line names."""
    return Job.read(Path(sys.argv[1]))
