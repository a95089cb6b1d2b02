"""A small recipe for training in a separate process, and facts about that process from /proc."""

import subprocess
import time
from pathlib import Path

import pytest

RECIPE = """\
data: {source: SOURCE, image_size: 32, resize: 32, workers: WORKERS}
model: {backbone: resnet18, weights: none}
train: {batch_size: 8, checkpoint_every_steps: 1, phases: [{freeze: backbone, epochs: EPOCHS}]}
cache: {where: off}
"""
linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def recipe_text(source: Path, workers: int = 0, epochs: int = 1) -> str:
    text = RECIPE.replace("SOURCE", str(source)).replace("WORKERS", str(workers))
    return text.replace("EPOCHS", str(epochs))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_training(process: "subprocess.Popen[str]", run: Path, workers: int) -> list[int]:
    """Wait until the run has saved a step. Returns the process ids of its loaders."""
    deadline = time.monotonic() + 90
    while not (run / "checkpoints" / "last").is_dir() or len(children(process.pid)) < workers:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return children(process.pid)


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all of these processes end within ``seconds``."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))
