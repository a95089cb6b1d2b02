"""The job of a contestant, as a JSON file, and its reports, as JSON lines.

Does not import torch: on Linux, the peak memory of a child process starts at that of its parent, so the
process that starts the contestants must stay small.
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

    ``folder`` has ``train`` and ``val`` with a folder per class. ``start`` is the file of
    :mod:`bench.network` with the weights that all begin with. ``work`` is one of
    :data:`bench.contestants.WORKS`. ``workers`` is the number of loader processes. ``judge``: evaluate on val
    after each epoch. ``mixed``: use mixed precision if the hardware supports it.
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
        """Write the job to a file. Returns its path, the argument of the contestant."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read a job from a file of :meth:`write`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Epoch:
    """One epoch: seconds and images of its training steps, their mean loss, and top-1 on val if measured.

    ``at``: seconds from the start of the process to the report of the epoch.
    """

    seconds: float
    images: int
    loss: float | None
    val_top1: float | None
    at: float


def print_facts(**facts: Any) -> None:
    """Print a JSON line for the parent process."""
    print(json.dumps(facts), flush=True)


def job_of_this_process() -> Job:
    """The job in the file that the command line names."""
    return Job.read(Path(sys.argv[1]))
