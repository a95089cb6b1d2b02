"""After Ctrl-C, SIGTERM, SIGHUP or a kill, a run ends in time, can resume, and leaves no process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import StoppedError
from finetune.training.run.signals import Signals
from processes import gone, in_training, linux_only


@linux_only
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "--resume"),
        pytest.param(signal.SIGTERM, 143, "--resume", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, "--resume", marks=pytest.mark.slow),
        (signal.SIGKILL, -9, ""),
        ("worker", 1, "a loader process died"),
    ],
)
def test_every_stop_is_quick_and_ends_the_loaders(
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
def test_blocked_loaders_delay_no_stop(
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
from finetune.training.steps.loop import Stepper

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
def test_the_second_ctrl_c_ends_the_run_at_once(
    recipe: Callable[..., Path], tmp_path: Path, start: Any
) -> None:
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


@linux_only
@pytest.mark.parametrize("ignored", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_closed_terminal_stops_the_run(ignored: bool, recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The run stops as after Ctrl-C, although nothing can be written; under nohup it continues."""
    import fcntl
    import pty
    import termios

    run, epochs = tmp_path / "run", 3 if ignored else 500
    master, terminal = pty.openpty()

    def as_a_shell_would() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    words = ["train", str(recipe(epochs=epochs)), "--run-dir", str(run), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", *words],
        stdin=terminal, stdout=terminal, stderr=terminal, text=True, preexec_fn=as_a_shell_would,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        os.close(terminal)
        reader = threading.Thread(target=_read_all, args=(master,), daemon=True)
        reader.start()
        in_training(process, run, 0)
        os.close(master)
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
    state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    # Without a terminal, the final message cannot be written to stdout, which is another error.
    assert (code, state["finished"]) == ((1, True) if ignored else (129, False))


def _read_all(master: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(master, 4096):
            pass


def test_the_effect_of_each_signal() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with Signals() as signals:
            signals.check()
            os.kill(os.getpid(), number)
            # A shell also sends it when its terminal closes.
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(StoppedError, match=f"stopped by {number.name}") as stopped:
                list(signals.watch(range(3)))
            assert stopped.value.exit_code == 128 + number
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_under_nohup_a_closed_terminal_has_no_effect() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("wait", [0.15, 1.0])
def test_a_stop_before_training_saves_nothing(
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
