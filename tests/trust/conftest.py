"""Runs of the real command in separate processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from processes import recipe_text

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def recipe(tmp_path: Path, shapes: Path) -> Callable[..., Path]:
    """``recipe(workers=2, epochs=500)`` writes a recipe, by default one of a single short epoch."""

    def write(workers: int = 0, epochs: int = 1, source: Path | None = None, more: str = "") -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe_text(source or shapes, workers, epochs) + more)
        return path

    return write


def _heed_ctrl_c() -> None:
    # A shell ignores SIGINT for its background processes, and children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Any:
    """``start("train", recipe)``: the command in a separate process, which ends with the test.

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
