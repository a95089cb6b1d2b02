"""A worker process: :class:`Worker` starts it and exchanges messages with it; :func:`serve` runs in it."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from finetune.data.processes.messages import (
    HEARTBEAT,
    Frame,
    Message,
    describe,
    is_shortage,
    receive,
    send,
    to_frame,
)

# Work calls it now and then to signal that it makes progress.
Heartbeat = Callable[[], None]

# Seconds between two heartbeats.
BEAT = 1.0
# An option of prctl on Linux.
PR_SET_PDEATHSIG = 1
# Ctrl-C, `kill` by a job scheduler and a closed terminal often reach all processes of a run. Only the main
# process acts on them. It may still need results, to finish its step.
RUN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_in_worker = False


def in_worker() -> bool:
    """Whether this process is a worker process."""
    return _in_worker


class Worker:
    """A worker process, as the main process sees it.

    A thread sends tasks and receives results. So the process has its next task while the main process handles
    a result, and the main process can stop waiting for a result.

    Attributes:
        heartbeats: the number of heartbeats received.
        connection: the socket to the process.

    Args:
        siblings: the sockets to the other processes, which a fork copies.
    """

    def __init__(
        self,
        context: Any,
        work: Callable[[Any, Heartbeat], Any],
        prepare: Callable[[], None],
        finish: Callable[[Any], Any] | None,
        siblings: Sequence[socket.socket],
    ) -> None:
        self.heartbeats = 0
        self._finish = finish
        self._pending = 0
        self._discarded = 0
        self._inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.connection, theirs = socket.socketpair()
        inherited = [*siblings, self.connection] if context.get_start_method() == "fork" else []
        args = (theirs, work, prepare, os.getpid(), inherited)
        self._process: BaseProcess = context.Process(target=serve, args=args, daemon=True)
        try:
            self._process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start_thread(self) -> None:
        """Start the thread. All processes must have started before: threads and forks do not mix."""
        thread = threading.Thread(target=self._exchange, daemon=True)
        thread.start()
        self._thread = thread

    def submit(self, task: Any) -> None:
        """Queue a task."""
        self._inbox.put(to_frame(task))
        self._pending += 1

    def discard_pending(self) -> None:
        """Ignore the results of the tasks submitted so far."""
        self._discarded = self._pending

    def wait(self, seconds: float) -> Message | None:
        """The next message; None if there is none within ``seconds``."""
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._outbox.get(timeout=seconds)
                self._pending -= 1
                if message.kind == "lost" or not self._discarded:
                    return message
                self._discarded -= 1
        if (self._thread is None or not self._thread.is_alive()) and self._outbox.empty():
            return Message("lost", None)
        return None

    def exit_reason(self) -> str:
        """How the process ended, once its connection is closed."""
        self._process.join(5)
        code = self._process.exitcode
        if code is None:
            return "it no longer answers"
        if code >= 0:
            return f"it ended with {code}"
        with contextlib.suppress(ValueError):
            return f"it was killed by {signal.Signals(-code).name}"
        return f"it was killed by signal {-code}"

    def kill(self) -> None:
        """Kill the process, which has nothing to clean up. Its thread notices and ends."""
        self._inbox.put(None)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._process.kill()

    def join(self) -> None:
        """Wait for the end of the process and of the thread."""
        self._process.join(5)
        if self._thread is not None:
            self._thread.join(5)
        self.connection.close()

    def _exchange(self) -> None:
        try:
            while (frame := self._inbox.get()) is not None:
                send(self.connection, frame)
                while (message := receive(self.connection)) is None:
                    self.heartbeats += 1
                if self._finish is not None and message.kind == "done":
                    message = Message("done", self._finish(message.content))
                self._outbox.put(message)
        except (EOFError, ConnectionError):
            self._outbox.put(Message("lost", None))
        except BaseException as error:
            short = is_shortage(error)
            self._outbox.put(Message("short", describe(error)) if short else Message("raised", error))


def end_workers(workers: Sequence[Worker]) -> None:
    """Kill all workers, and wait for their end."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


def serve(
    connection: socket.socket,
    work: Callable[[Any, Heartbeat], Any],
    prepare: Callable[[], None],
    parent: int,
    inherited: Sequence[socket.socket],
) -> None:
    """Do tasks until the connection closes.

    Args:
        prepare: called once, before the first task.
        parent: process id of the parent.
        inherited: sockets that a fork copied from the parent. They are closed here.
    """
    global _in_worker
    _in_worker = True
    for each in inherited:
        each.close()
    _leave_signals_to_parent(parent)
    heartbeat = _Heartbeat(connection)
    try:
        prepare()
        while True:
            send(connection, _do(work, receive(connection), heartbeat))
    except (EOFError, ConnectionError):
        os._exit(0)  # the parent has ended, or has closed the pool


def _do(work: Callable[[Any, Heartbeat], Any], task: Any, heartbeat: Heartbeat) -> Frame:
    try:
        return to_frame(Message("done", work(task, heartbeat)))
    except Exception as error:
        if is_shortage(error):
            return to_frame(Message("short", describe(error)))
        trace = "".join(traceback.format_exception(error))
        with contextlib.suppress(Exception):
            error.add_note(f"In a worker process:\n{trace}")
            frame = to_frame(Message("raised", error))
            pickle.loads(frame[1])
            return frame
        # The error cannot be pickled.
        return to_frame(Message("raised", RuntimeError(trace)))


def _leave_signals_to_parent(parent: int) -> None:
    """Ignore the signals of the run. End with the parent, however it ends."""
    for number in RUN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
    if not sys.platform.startswith("linux"):
        return  # the process ends after its task, when it finds the connection closed
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent and multiprocessing.get_start_method() != "forkserver":
        os._exit(0)  # the parent ended before prctl


class _Heartbeat:
    """Sends a heartbeat when it is called, at most once in :data:`BEAT` seconds."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._next = time.monotonic() + BEAT

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT
            send(self._connection, HEARTBEAT)
