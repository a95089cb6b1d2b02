"""The code that runs in a worker process: receive a task, do it, send the result."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from finetune.data.processes.callbacks import Heartbeat
from finetune.data.processes.messages import (
    Frame,
    Message,
    describe,
    is_shortage,
    receive,
    send,
    send_heartbeat,
    to_frame,
)

# Seconds between two heartbeats.
BEAT = 1.0
# An option of prctl on Linux.
PR_SET_PDEATHSIG = 1
# Ctrl-C, `kill` by a job scheduler and a closed terminal often reach all processes of a run. Only the main
# process acts on them. It may still need results, to finish its step.
RUN_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
]

_in_worker = False


def in_worker() -> bool:
    """Whether this process is a worker process."""
    return _in_worker


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
    if hasattr(signal, "pthread_sigmask"):
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
            send_heartbeat(self._connection)
