"""Of many simultaneous starts in one run directory, one trains and the others are refused at once."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from finetune.cli import output
from finetune.cli.commands import COMMANDS
from finetune.cli.main import command_line
from finetune.cli.start import FLAGS, VALUED, _options
from finetune.training.run.directory import RunDir


def starts_at_once(count: int, recipe: Path, run: Path, start: Any) -> list[float]:
    """Seconds from its start that each refused process took."""
    began = {}
    for _ in range(count):
        process = start("train", recipe, "--run-dir", run, "--device", "cpu")
        began[process] = time.monotonic()
    took: list[float] = []
    while len(took) < count - 1:
        for process in [each for each in began if each.poll() is not None]:
            assert process.returncode == 2
            took.append(time.monotonic() - began.pop(process))
            assert "another process" in process.stderr.read()
        time.sleep(0.001)
    (winner,) = began
    assert winner.poll() is None
    _until((run / "checkpoints" / "last").is_dir)
    winner.kill()
    winner.communicate()
    # A kill -9 leaves nothing that blocks the next start.
    again = start("train", recipe, "--run-dir", run, "--resume", "--device", "cpu")
    before = (run / "checkpoints" / "last").stat().st_ino
    _until(lambda: _inode(run) not in (before, None))
    assert again.poll() is None
    return took


def test_one_of_several_starts_runs(recipe: Callable[..., Path], tmp_path: Path, start: Any) -> None:
    starts_at_once(5, recipe(epochs=500), tmp_path / "run", start)


@pytest.mark.slow
def test_one_of_fifty_starts_runs(recipe: Callable[..., Path], tmp_path: Path, start: Any) -> None:
    took = starts_at_once(50, recipe(epochs=500), tmp_path / "run", start)
    # Fifty interpreters share the cores with the training one, so the time depends on the machine.
    print(f"refused within {sorted(took)[25]:.2f} s (median), {max(took):.2f} s (the last)")


def test_a_refusal_takes_little_processor_time(
    recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
    """In processor time, which does not depend on what else the machine is doing."""
    path, run = recipe(), tmp_path / "run"
    with RunDir.open(run):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = start("train", path, "--run-dir", run)
        _, err = process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.returncode == 2
    assert "another process" in err
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_the_start_knows_the_options_of_train() -> None:
    command = typer.main.get_command(command_line(COMMANDS)).commands["train"]  # type: ignore[attr-defined]
    options = {name for each in command.params for name in each.opts if name.startswith("--")}
    valued = {each.opts[0] for each in command.params if each.opts[0] in options and not each.is_flag}
    valued.remove("--seeds")  # several runs, each in its own directory
    assert set(VALUED) == valued
    # Every command has --quiet; --vary-split requires --seeds.
    assert set(FLAGS) - set(output.QUIET) == options - valued - {"--seeds", "--vary-split"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "R"], {"recipe": "R"}),
        (["train", "--run-dir", "x", "R"], {"recipe": "R", "--run-dir": "x"}),
        (["train", "R", "--smoke"], {"recipe": "R", "--smoke": "--smoke"}),
        (["train", "R", "--run-dir=x", "--set", "a=1"], {"recipe": "R", "--run-dir": "x", "--set": "a=1"}),
        (["train", "R", "R"], None),
        (["train", "R", "--help"], None),
        (["train", "R", "--resume", "--overwrite"], None),
        (["train", "R", "--force"], None),
        (["train", "R", "--run-dir"], None),
        (["train", "nothing.yaml"], None),
        (["eval", "R"], None),
        ([], None),
    ],
)  # fmt: skip
def test_unusual_command_lines_go_to_the_full_parser(
    words: list[str], expected: dict[str, str] | None, recipe: Callable[..., Path]
) -> None:
    path = str(recipe())
    place = [path if word == "R" else word for word in words]
    assert _options(place) == (expected and {k: path if v == "R" else v for k, v in expected.items()})


def test_a_run_that_fails_before_training_leaves_no_folder(tmp_path: Path, start: Any) -> None:
    (tmp_path / "bad.yaml").write_text("data: {}\n")
    process = start("train", tmp_path / "bad.yaml", "--run-dir", tmp_path / "run")
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert not (tmp_path / "run").exists()


def _inode(run: Path) -> int | None:
    try:
        return (run / "checkpoints" / "last").stat().st_ino
    except FileNotFoundError:
        return None


def _until(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
