"""Worker processes: however they fail, every wait ends and no process is left."""

import errno
import gc
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from finetune.data.processes import messages, pool, worker
from finetune.data.processes.messages import is_shortage
from finetune.data.processes.pool import ProcessPool, Wording
from finetune.data.processes.worker import Heartbeat
from finetune.errors import FinetuneError

forks = pytest.mark.skipif(sys.platform != "linux", reason="what is patched here reaches forked processes")
LARGE = 300_000


def double(task: int, heartbeat: Heartbeat) -> int:
    return 2 * task


def pixels(task: int, heartbeat: Heartbeat) -> npt.NDArray[np.uint8]:
    return np.full(LARGE + task, task, dtype=np.uint8)


def length(task: bytes, heartbeat: Heartbeat) -> int:
    return len(task)


def where(task: int, heartbeat: Heartbeat) -> int:
    return os.getpid()


class OddError(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("odd")


@pytest.fixture(autouse=True)
def _nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_reported", set())


@pytest.fixture
def started() -> Iterator[Callable[..., ProcessPool[Any, Any]]]:
    made: list[ProcessPool[Any, Any]] = []

    def start(work: Callable[[Any, Heartbeat], Any], count: int = 2, **options: Any) -> ProcessPool[Any, Any]:
        made.append(ProcessPool(work, count, Wording("a helper", "Try none."), **options))
        return made[-1]

    yield start
    for each in made:
        each.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("tasks", [0, 1, 2, 50])
def test_results_keep_the_order_of_tasks(count: int, tasks: int, started: Any) -> None:
    helpers = started(double, count)
    for _ in range(2):
        assert list(helpers.results(range(tasks))) == [2 * task for task in range(tasks)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method(method: Literal["fork", "spawn", "forkserver"], started: Any) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not here")
    helpers = started(where, 2, method=method)
    found = list(helpers.results(range(4)))
    assert found[:2] == found[2:]
    assert len({*found, os.getpid()}) == 3


@pytest.mark.parametrize("count", [0, 2])
def test_tasks_and_results_of_any_size(count: int, started: Any) -> None:
    """They exceed the buffers of a socket: each side waits for the other, but never both at once."""
    for task, answer in enumerate(started(pixels, count).results(range(12))):
        assert answer.shape == (LARGE + task,)
        assert (answer == task).all()
        answer[0] = 255  # it is writable
    sizes = [10 * LARGE, 0, 5 * LARGE, 1] * 3
    assert list(started(length, count).results([bytes(size) for size in sizes])) == sizes


@pytest.mark.parametrize("count", [1, 2])
def test_results_that_are_not_fetched_are_lost(count: int, started: Any) -> None:
    helpers = started(double, count)
    for fetched in range(6):
        left = helpers.results(range(10))
        assert [next(left) for _ in range(fetched)] == [2 * task for task in range(fetched)]
        left.close()
        assert list(helpers.results(range(100, 105))) == [200, 202, 204, 206, 208]


def test_processes_last_until_close_and_start_again(started: Any) -> None:
    helpers = started(where, 2)
    first = set(helpers.results(range(4)))
    assert set(helpers.results(range(4))) == first
    helpers.close()
    assert not multiprocessing.active_children()
    assert not set(helpers.results(range(4))) & first


def test_finish_is_applied_to_results(started: Any) -> None:
    for count in (0, 2):
        assert list(started(double, count, finish=str).results(range(3))) == ["0", "2", "4"]


# Failures.


def raising(error: BaseException) -> Callable[[Any, Heartbeat], Any]:
    """Fails at task 3 in a worker process."""

    def work(task: int, heartbeat: Heartbeat) -> int:
        if task == 3 and worker.in_worker():
            raise error
        return 2 * task

    return work


@forks
@pytest.mark.parametrize("error", [ValueError("no such thing"), KeyError("key"), OSError(errno.EIO, "bad")])
def test_an_error_of_the_work_is_raised(error: Exception, started: Any) -> None:
    with pytest.raises(type(error)) as caught:
        list(started(raising(error)).results(range(9)))
    assert str(caught.value) == str(error)
    assert "in work" in caught.value.__notes__[0]


@forks
def test_an_error_that_cannot_be_pickled_is_described(started: Any) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in work.*odd"):
        list(started(raising(OddError(1, 2))).results(range(9)))


@forks
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_after_a_shortage_the_main_process_works(
    error: Exception, started: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_shortage(error)
    helpers = started(raising(error))
    with caplog.at_level(logging.WARNING, "finetune"):
        assert list(helpers.results(range(9))) == [2 * task for task in range(9)]
        assert list(helpers.results(range(2))) == [0, 2]
    assert not multiprocessing.active_children()
    (record,) = caplog.records
    assert "a helper could not continue" in record.getMessage()
    assert "Try none." in record.getMessage()


def fails_after(count: int, error: Exception, original: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > count:
            raise type(error)(*error.args)  # a new error, without references to earlier tests
        return original(*args, **options)

    return call


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (socket, "socketpair", OSError(errno.EMFILE, "Too many open files")),
        (os, "fork", OSError(errno.EAGAIN, "Resource temporarily unavailable")),
        (os, "fork", OSError(errno.ENOMEM, "Cannot allocate memory")),
        (os, "pipe", OSError(errno.EMFILE, "Too many open files")),
        (os, "dup", OSError(errno.EMFILE, "Too many open files")),
        (threading.Thread, "start", RuntimeError("can't start new thread")),
    ],
)
def test_if_processes_cannot_start_the_main_process_works(
    place: Any,
    name: str,
    error: Exception,
    after: int,
    started: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not hasattr(place, name):
        pytest.skip("not here")
    gc.collect()  # what earlier tests left must not be closed between the two counts
    before = open_files()
    helpers = started(double, 2, method="fork" if hasattr(os, "fork") else None)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "finetune"):
        patched.setattr(place, name, fails_after(after, error, getattr(place, name)))
        assert list(helpers.results(range(9))) == [2 * task for task in range(9)]
    assert "a helper could not continue" in caplog.text
    assert not multiprocessing.active_children()
    if name not in ("fork", "pipe"):  # Python itself leaves some open
        assert open_files() == before


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def die(task: Callable[[], None], heartbeat: Heartbeat) -> None:
    task()


@forks
@pytest.mark.parametrize(
    ("number", "said"), [("SIGKILL", "SIGKILL"), ("SIGSEGV", "SIGSEGV"), ("SIGBUS", "SIGBUS"), (3, "with 3")]
)
def test_the_death_of_a_process_is_an_error_with_the_reason(number: Any, said: str, started: Any) -> None:
    def work(task: int, heartbeat: Heartbeat) -> int:
        if task == 3 and worker.in_worker():
            if isinstance(number, int):
                os._exit(number)
            signal.signal(getattr(signal, number), signal.SIG_DFL) if number != "SIGKILL" else None
            os.kill(os.getpid(), getattr(signal, number))
            time.sleep(60)
        return 2 * task

    helpers, got = started(work), []
    with pytest.raises(FinetuneError, match=rf"a helper died: .*{said}.*Try none\."):
        got.extend(helpers.results(range(9)))
    assert not multiprocessing.active_children()


@forks
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_an_incomplete_result_is_a_death(parts: int, started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = messages.send

    def torn(to: socket.socket, frame: list[Any]) -> None:
        if worker.in_worker():
            whole(to, frame[:parts])
            os._exit(0)
        whole(to, frame)

    monkeypatch.setattr(worker, "send", torn)
    with pytest.raises(FinetuneError, match="a helper died"):
        list(started(pixels).results(range(4)))


class EnoughError(Exception):
    pass


@forks
def test_a_check_ends_the_wait_for_a_stopped_process(started: Any) -> None:
    def work(task: int, heartbeat: Heartbeat) -> int:
        if task == 3 and worker.in_worker():
            os.kill(os.getpid(), signal.SIGSTOP)
        return task

    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks > 9:  # more than the number of results before the missing one
            raise EnoughError

    with pytest.raises(EnoughError):
        list(started(work).results(range(9), check))


@forks
def test_the_wait_for_a_stopped_process_ends(
    started: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "QUIET", 0.2)
    monkeypatch.setattr(pool, "STUCK", 0.5)

    def work(task: int, heartbeat: Heartbeat) -> int:
        if task == 3 and worker.in_worker():
            os.kill(os.getpid(), signal.SIGSTOP)
        return 2 * task

    helpers = started(work)
    with (
        caplog.at_level(logging.WARNING, "finetune"),
        pytest.raises(FinetuneError, match=r"a helper \(process [0-9]+\) has made no progress.*Try none"),
    ):
        list(helpers.results(range(9)))
    assert "After 0 seconds, this is an error" in caplog.text
    assert not multiprocessing.active_children()


@forks
def test_heartbeats_prolong_the_wait(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STUCK", 1.0)
    monkeypatch.setattr(worker, "BEAT", 0.05)

    def work(task: int, heartbeat: Heartbeat) -> int:
        for _ in range(25):
            time.sleep(0.1)
            heartbeat()
        return task

    assert list(started(work, 1).results([7])) == [7]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals")
def test_processes_ignore_the_signals_of_the_run(started: Any) -> None:
    helpers = started(where, 2)
    answers = helpers.results(range(40))
    first = {next(answers), next(answers)}
    for pid in first:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    assert set(answers) == first


@forks
def test_close_in_a_forked_copy_ends_no_process(started: Any) -> None:
    helpers = started(where, 2)
    first = set(helpers.results(range(4)))
    child = multiprocessing.get_context("fork").Process(target=helpers.close)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert set(helpers.results(range(4))) == first


LEFT = """
import os, signal, sys, time
from finetune.data.processes.pool import ProcessPool, Wording

def work(task, heartbeat):
    return os.getpid()

helpers = ProcessPool(work, 2, Wording("", ""))
pids = set(helpers.results(range(8)))
print(*pids, flush=True)
END
"""


@forks
@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(0)",
        "raise ValueError",
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(min(pids), signal.SIGKILL)",
        "[os.kill(pid, signal.SIGSTOP) for pid in pids]",
    ],
)
def test_processes_never_outlive_the_run_and_leave_no_folder(end: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT.replace("END", end)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        gone(pid)
    assert list(tmp_path.iterdir()) == []


def gone(pid: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2:3]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
