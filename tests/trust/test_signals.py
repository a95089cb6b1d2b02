"""Ctrl-C, SIGTERM, kills: the run ends in time, can be continued, and leaves no process behind."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def in_training(process: Any, run: Path, workers: int) -> list[int]:
    """Wait until steps are being saved; the process numbers of the loaders."""
    deadline = time.monotonic() + 90
    while not (run / "checkpoints" / "last").is_dir() or len(children(process.pid)) < workers:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return children(process.pid)


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


@linux_only
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "--resume"),
        pytest.param(signal.SIGTERM, 143, "--resume", marks=pytest.mark.slow),
        (signal.SIGKILL, -9, ""),
        ("worker", 1, "a loader process died"),
    ],
)
def test_every_end_is_in_time_and_takes_the_loaders_along(
    number: Any, code: int, said: str, recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
    run = tmp_path / "run"
    process = start("train", recipe(workers=2, epochs=500), "--run-dir", run, "--device", "cpu")
    loaders = in_training(process, run, 2)
    began = time.monotonic()
    if number == "worker":
        os.kill(loaders[0], signal.SIGKILL)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number != "worker":
        assert time.monotonic() - began < 10
    assert process.returncode == code, err
    assert said in err
    if number != signal.SIGKILL:  # a loader may have begun to say that its run is gone
        assert "Traceback" not in err
    assert gone(loaders, 2)
    assert (run / "checkpoints" / "last" / "manifest.json").is_file()
    if number == "worker":
        assert "SIGKILL" in err
        assert "data.workers: 0" in err


@linux_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("where", ["train", "val"])
def test_loaders_that_stand_still_hold_up_no_stop(
    number: int, code: int, where: str, recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
    run, size = tmp_path / "run", "4096" if where == "val" else "8"
    more = ["--set", f"train.batch_size={size}"]
    process = start("train", recipe(workers=2, epochs=500), "--run-dir", run, "--device", "cpu", *more)
    loaders = in_training(process, run, 2)
    for pid in loaders:
        os.kill(pid, signal.SIGSTOP)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "--resume" in err
    assert "Traceback" not in err
    assert gone(loaders, 30)
    assert (run / "checkpoints" / "last" / "manifest.json").is_file()


ENDLESS = """
import itertools, sys, time
from finetune.training.loop import Stepper

step, steps = Stepper._update, itertools.count()

def endless(*args):
    while next(steps) >= 3:
        time.sleep(0.05)
    step(*args)

Stepper._update = endless
from finetune.cli.start import main
main()
"""


@linux_only
def test_the_second_ctrl_c_ends_it_at_once(recipe: Callable[..., Path], tmp_path: Path, start: Any) -> None:
    run = tmp_path / "run"
    words = ["train", recipe(workers=2, epochs=500), "--run-dir", run, "--device", "cpu"]
    process = start(*words, program=("-c", ENDLESS))
    loaders = in_training(process, run, 2)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.monotonic() - began < 1
    assert process.returncode in (-2, 130)
    assert gone(loaders, 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("wait", [0.15, 1.0])
def test_before_training_begins_there_is_nothing_to_save(
    number: int, code: int, wait: float, recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
    process = start("train", recipe(), "--run-dir", tmp_path / "run", "--device", "cpu")
    deadline = time.monotonic() + 30
    while not (tmp_path / "run").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
