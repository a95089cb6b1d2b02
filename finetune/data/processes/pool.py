"""A pool of worker processes. Torch-free.

Every failure of a worker ends the wait for it: its death, a standstill, a lack of memory or descriptors, and
a machine on which it cannot start.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, Literal, Self, TypeVar

from finetune.data.processes.messages import Message, describe
from finetune.data.processes.worker import RUN_SIGNALS, Heartbeat, Worker, end_workers
from finetune.errors import FinetuneError

log = logging.getLogger("finetune")

T = TypeVar("T")
R = TypeVar("R")
# Called while this process waits. It may end the wait by raising.
Check = Callable[[], None]

# Tasks per process that are submitted ahead of the result that is being waited for.
AHEAD = 2
# Seconds between two calls of a check.
POLL = 0.1
# Seconds without a heartbeat before a warning, and before an error.
QUIET, STUCK = 30.0, 300.0
# Descriptors that must remain for images, checkpoints and tables.
SPARE_DESCRIPTORS = 12

# The failures that the log has already reported.
_reported: set[tuple[str, str]] = set()


def do_nothing() -> None:
    """Do nothing: the default of a callback."""


@dataclass(frozen=True)
class Wording:
    """How messages to the user speak about a pool.

    Attributes:
        name: one of the processes, such as "a loader process".
        remedy: how to do without them, in a sentence.
    """

    name: str
    remedy: str


class ProcessPool(Generic[T, R]):
    """Processes that call ``work`` on tasks.

    They start with the first task, last until :meth:`close`, and never outlive this process. If they cannot
    start, or run out of memory or descriptors, this process warns and does the work itself, with the same
    results.

    Args:
        work: takes a task and a heartbeat, which it calls now and then. Work, tasks and results must be
            picklable.
        count: the number of processes; with 0, this process does the work.
        wording: for messages.
        method: fork, spawn or forkserver; None takes Python's default.
        prepare: called once in each process.
        finish: applied to each result in this process, in a thread if there are worker processes.
    """

    def __init__(
        self,
        work: Callable[[T, Heartbeat], R],
        count: int,
        wording: Wording,
        *,
        method: Literal["fork", "spawn", "forkserver"] | None = None,
        prepare: Callable[[], None] = do_nothing,
        finish: Callable[[R], R] | None = None,
    ) -> None:
        self._work = work
        self._count = count
        self._wording = wording
        self._method = method
        self._prepare = prepare
        self._finish = finish
        self._workers: list[Worker] = []
        self._end: Callable[[], object] = do_nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def results(self, tasks: Iterable[T], check: Check = do_nothing) -> Generator[R]:
        """Yield the result of each task, in order. Results of earlier calls that were not fetched are lost.

        Args:
            check: called while this process waits for a result; it may end the wait by raising.

        Raises:
            FinetuneError: a process died or hangs.
            Exception: raised by ``work``.
        """
        todo = iter(tasks)
        submitted: deque[T] = deque()
        if self._count and not self._workers:
            self._start()
        workers = list(self._workers)
        for worker in workers:
            worker.discard_pending()
        try:
            for number, task in enumerate(islice(todo, AHEAD * len(workers))):
                submitted.append(task)
                workers[number % len(workers)].submit(task)
            number = 0
            while submitted and workers:
                worker = workers[number % len(workers)]
                result = self._result(worker, check)
                submitted.popleft()
                number += 1
                # The next task goes to the same worker, so that results keep the order of the tasks.
                for task in islice(todo, 1):
                    submitted.append(task)
                    worker.submit(task)
                yield result
        except _ShortageError as error:
            self._do_without(str(error))
        for task in chain(submitted, todo):
            check()
            result = self._work(task, do_nothing)
            yield result if self._finish is None else self._finish(result)

    def close(self) -> None:
        """Kill the processes. Further tasks start new ones."""
        # Has no effect in a forked copy of this process.
        self._end()
        self._workers, self._end = [], do_nothing

    def _start(self) -> None:
        method = self._method or multiprocessing.get_start_method()
        context: Any = multiprocessing.get_context(method)
        # Registered first. At exit, Python waits for its processes, and these ignore SIGTERM.
        self._end = multiprocessing.util.Finalize(self, end_workers, args=(self._workers,), exitpriority=10)
        try:
            # Python warns about forks while threads run. torch's loaders fork all the same.
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning), _signals_held():
                for _ in range(self._count):
                    siblings = [each.connection for each in self._workers]
                    worker = Worker(context, self._work, self._prepare, self._finish, siblings)
                    self._workers.append(worker)
            for worker in self._workers:
                worker.start_thread()
            _require_spare_descriptors(self._workers[0].connection)
        except (OSError, MemoryError, RuntimeError) as error:
            # RuntimeError: "can't start new thread".
            self._do_without(describe(error))

    def _do_without(self, reason: str) -> None:
        self.close()
        self._count = 0
        # Reported once: the evaluation of each epoch may start processes again.
        failure = (self._wording.name, reason)
        log.log(
            logging.DEBUG if failure in _reported else logging.WARNING,
            "%s could not continue (%s). The main process does the work, more slowly and with the same "
            "results. %s",
            self._wording.name,
            reason,
            self._wording.remedy,
        )
        _reported.add(failure)

    def _result(self, worker: Worker, check: Check) -> R:
        message = self._wait(worker, check)
        if message.kind == "done":
            return message.content  # type: ignore[no-any-return]
        if message.kind == "short":
            raise _ShortageError(message.content)
        if message.kind == "lost":
            reason = worker.exit_reason()
            self.close()
            raise FinetuneError(
                f"{self._wording.name} died: {reason}. If memory ran out, the log of the system says so. "
                f"{self._wording.remedy}"
            )
        raise message.content

    def _wait(self, worker: Worker, check: Check) -> Message:
        # Counts polls, not time: time also passes while this process itself is stopped.
        silent, heartbeats, warned = 0.0, worker.heartbeats, False
        while True:
            check()
            message = worker.wait(POLL)
            if message is not None:
                return message
            silent = silent + POLL if worker.heartbeats == heartbeats else 0.0
            heartbeats = worker.heartbeats
            if silent >= STUCK:
                self.close()
                raise FinetuneError(
                    f"{self._wording.name} (process {worker.pid}) has made no progress for {STUCK:.0f} "
                    "seconds: it is stopped, or waits for a disk or a network that does not answer. "
                    f"{self._wording.remedy}"
                )
            if silent >= QUIET and not warned:
                warned = True
                log.warning(
                    "%s (process %s) has made no progress for %.0f seconds. After %.0f seconds, this is an "
                    "error",
                    self._wording.name,
                    worker.pid,
                    QUIET,
                    STUCK,
                )


class _ShortageError(Exception):
    """A worker ran out of memory or descriptors, and still lives."""


def _require_spare_descriptors(some: socket.socket) -> None:
    """Raise OSError if too few descriptors are left for the work itself."""
    taken: list[int] = []
    try:
        taken.extend(os.dup(some.fileno()) for _ in range(SPARE_DESCRIPTORS))
    finally:
        for descriptor in taken:
            os.close(descriptor)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back signals until the processes that start here ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
