"""Runs of the real command in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]

RECIPE = """\
data: {source: SOURCE, image_size: 32, resize: 32, workers: WORKERS}
model: {backbone: resnet18, weights: none}
train: {batch_size: 8, checkpoint_every_steps: 1, phases: [{freeze: backbone, epochs: EPOCHS}]}
cache: {where: off}
"""


@pytest.fixture
def recipe(tmp_path: Path, shapes: Path) -> Callable[..., Path]:
    """``recipe(workers=2, epochs=500)`` writes a recipe; without words one of a single short epoch."""

    def write(workers: int = 0, epochs: int = 1, source: Path | None = None, more: str = "") -> Path:
        path = tmp_path / "recipe.yaml"
        text = RECIPE.replace("SOURCE", str(source or shapes)).replace("WORKERS", str(workers))
        path.write_text(text.replace("EPOCHS", str(epochs)) + more)
        return path

    return write


def _heed_ctrl_c() -> None:
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Any:
    """``start("train", recipe)``: the command in a process of its own, which does not outlive the test.

    ``program`` is what Python runs, ``before`` words that go before all others, ``within`` is called in the
    process first, and ``environment`` has more variables.
    """
    started: list[subprocess.Popen[str]] = []

    def run(
        *words: str | Path,
        program: Sequence[str] = ("-m", "finetune"),
        before: Sequence[str] = (),
        within: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        def prepare() -> None:
            _heed_ctrl_c()
            within()

        process = subprocess.Popen(
            [*before, sys.executable, *program, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            preexec_fn=prepare if os.name == "posix" else None,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
