"""Work for processes beside this one, whose answers come back in order; what happens to those processes.

Every way in which they can fail ends a wait: one that dies, one that stands still, one that runs out of
memory or descriptors, and a machine that does not let them start. Nothing that they hand over takes room in
``/dev/shm``, a descriptor of its own or a file in the folder for temporary files: an answer goes through the
one socket that a process has. Torch-free.
"""

import contextlib
import ctypes
import errno
import logging
import multiprocessing
import multiprocessing.util
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, Self, TypeVar

from finetune.errors import FinetuneError

log = logging.getLogger("finetune")

T = TypeVar("T")
R = TypeVar("R")
# What a process calls now and then to say that it gets on.
Alive = Callable[[], None]

# So many tasks for each process are at work or done and not yet asked for.
AHEAD = 2
# Seconds between two looks at whether a wait is to end.
POLL = 0.1
# A process that gets on says so about this often, in seconds.
BEAT = 1.0
# Seconds without such a word: told after the first number, an error after the second.
QUIET, STUCK = 30.0, 300.0
# Descriptors that have to be left for images, checkpoints and tables.
SPARE_DESCRIPTORS = 12
# What says that the machine is short of something, and nothing of the task.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)
# Of Linux's prctl.
PR_SET_PDEATHSIG = 1
# Ctrl-C, `kill` by a job scheduler and a closed terminal often reach all processes at once.
LEFT_TO_THE_RUN = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
]
# Length of the head, number of the buffers after it; and then each buffer's length. All 0: a sign of life.
FRAME, LENGTH = struct.Struct("<QI"), struct.Struct("<Q")

_serving = False
_told: set[tuple[str, str]] = set()


def serving() -> bool:
    """Whether this is one of the processes that work for another."""
    return _serving


def do_nothing() -> None:
    """For whoever has nothing to say, or to check."""


def is_shortage(error: BaseException) -> bool:
    """Whether ``error`` says that memory or descriptors ran out."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORTAGES)


class Processes(Generic[T, R]):
    """Processes that call ``work`` on what they are given.

    They start with the first task, last until :meth:`close`, and never outlive this process. Where they
    cannot start, or run out of memory or descriptors, this process does the work itself, which a warning
    tells: what comes of it is the same.

    Args:
        work: takes a task, and what is to be called now and then as a sign of life. Picklable with all it
            refers to, as tasks and answers are.
        count: how many processes; with 0 this one does the work.
        called: what messages call one of them.
        remedy: how to do without, for messages.
        method: fork, spawn or forkserver; None takes Python's own choice.
        prepare: is called once in each process.
        finish: what becomes of an answer in this process, in a thread where there are processes.
    """

    def __init__(
        self,
        work: Callable[[T, Alive], R],
        count: int,
        *,
        called: str,
        remedy: str,
        method: Literal["fork", "spawn", "forkserver"] | None = None,
        prepare: Callable[[], None] = do_nothing,
        finish: Callable[[R], R] | None = None,
    ) -> None:
        self._work = work
        self._count = count
        self._called = called
        self._remedy = remedy
        self._method = method
        self._prepare = prepare
        self._finish = finish
        self._minders: list[_Minder] = []
        self._end: Callable[[], object] = do_nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answers(self, tasks: Iterable[T], check: Callable[[], None] = do_nothing) -> Generator[R]:
        """The answer to each of ``tasks``, in order. What was asked for before and not fetched is forgotten.

        Args:
            check: is called while an answer is waited for, and may end the wait by raising.

        Raises:
            FinetuneError: a process died or stands still.
            Exception: what ``work`` raised.
        """
        todo = iter(tasks)
        asked: deque[T] = deque()
        if self._count and not self._minders:
            self._start()
        minders = list(self._minders)
        for minder in minders:
            minder.forget()
        try:
            for number, task in enumerate(islice(todo, AHEAD * len(minders))):
                asked.append(task)
                minders[number % len(minders)].ask(task)
            number = 0
            while asked and minders:
                minder = minders[number % len(minders)]
                answer = self._answer(minder, check)
                asked.popleft()
                number += 1
                # What is asked for next goes to the one that has just been heard: in turn, as answers come.
                for task in islice(todo, 1):
                    asked.append(task)
                    minder.ask(task)
                yield answer
        except _ShortError as error:
            self._do_without(str(error))
        for task in _chain(asked, todo):
            check()
            done = self._work(task, do_nothing)
            yield done if self._finish is None else self._finish(done)

    def close(self) -> None:
        """End the processes, at once. Further tasks start new ones."""
        # Does nothing in a process that was forked from this one, and has what it has.
        self._end()
        self._minders, self._end = [], do_nothing

    def _start(self) -> None:
        method = self._method or multiprocessing.get_start_method()
        context: Any = multiprocessing.get_context(method)
        # First of all, since Python waits for its processes at the end, and these heed nobody's SIGTERM.
        ends = multiprocessing.util.Finalize(self, _end, args=(self._minders,), exitpriority=10)
        self._end = ends
        try:
            with _quiet_start(), _signals_held():
                for _ in range(self._count):
                    # A process that is forked has all that is open here.
                    shut = [each.socket for each in self._minders] if method == "fork" else []
                    self._minders.append(_Minder(context, self._work, self._prepare, self._finish, shut))
            for minder in self._minders:
                minder.start()
            _leave_room(self._minders[0].socket)
        except (OSError, MemoryError, RuntimeError) as error:
            # RuntimeError: "can't start new thread".
            self._do_without(_described(error))

    def _do_without(self, reason: str) -> None:
        self.close()
        self._count = 0
        # Once: each epoch's val may start processes anew.
        log.log(
            logging.DEBUG if (self._called, reason) in _told else logging.WARNING,
            "%s could not go on (%s). The work goes on without such processes: more slowly, with the same "
            "results. %s",
            self._called,
            reason,
            self._remedy,
        )
        _told.add((self._called, reason))

    def _answer(self, minder: "_Minder", check: Callable[[], None]) -> R:
        message = self._wait(minder, check)
        if message.kind == "done":
            return message.content  # type: ignore[no-any-return]
        if message.kind == "short":
            raise _ShortError(message.content)
        if message.kind == "lost":
            end = minder.end()
            self.close()
            raise FinetuneError(
                f"{self._called} died: {end}. Memory may have run out; the system's log then says so. "
                f"{self._remedy}"
            )
        raise message.content

    def _wait(self, minder: "_Minder", check: Callable[[], None]) -> "_Message":
        # Counted in looks and not by the clock, which goes on while this process is stopped itself.
        quiet, heard, told = 0.0, minder.signs_of_life, False
        while True:
            check()
            message = minder.message(POLL)
            if message is not None:
                return message
            quiet, heard = (quiet + POLL if minder.signs_of_life == heard else 0.0), minder.signs_of_life
            if quiet >= STUCK:
                self.close()
                raise FinetuneError(
                    f"{self._called} (process {minder.pid}) has stood still for {STUCK:.0f} seconds: it is "
                    f"stopped, or waits for a disk or a network that does not answer. {self._remedy}"
                )
            if quiet >= QUIET and not told:
                told = True
                log.warning(
                    "%s (process %s) has not got on for %.0f seconds; after %.0f it counts as lost",
                    self._called,
                    minder.pid,
                    QUIET,
                    STUCK,
                )


class _ShortError(Exception):
    """A process ran out of memory or descriptors, and lives."""


@dataclass(frozen=True)
class _Message:
    """``content`` is of kind done the answer, of raised the exception, of short the reason, of lost None."""

    kind: Literal["done", "raised", "short", "lost"]
    content: Any


class _Minder:
    """One process, and the thread that hands it tasks and takes its answers in.

    A thread, so that a process has its next task while this one is busy with the answer before, and so that
    whoever waits for an answer can stop waiting.
    """

    def __init__(
        self,
        context: Any,
        work: Callable[[Any, Alive], Any],
        prepare: Callable[[], None],
        finish: Callable[[Any], Any] | None,
        shut: Sequence[socket.socket],
    ) -> None:
        self.signs_of_life = 0
        self._finish = finish
        self._unanswered = 0
        self._forgotten = 0
        self._inbox: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.socket, there = socket.socketpair()
        shut = [*shut, self.socket] if context.get_start_method() == "fork" else []
        args = (there, work, prepare, os.getpid(), shut)
        self._process: BaseProcess = context.Process(target=_serve, args=args, daemon=True)
        try:
            self._process.start()
        except BaseException:
            self.socket.close()
            raise
        finally:
            there.close()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def start(self) -> None:
        """Have the thread begin; not before all processes are there, since threads and forks don't mix."""
        thread = threading.Thread(target=self._mind, daemon=True)
        thread.start()
        self._thread = thread

    def ask(self, task: Any) -> None:
        self._inbox.put(_framed(task))
        self._unanswered += 1

    def forget(self) -> None:
        """What was asked for so far is not wanted any more."""
        self._forgotten = self._unanswered

    def message(self, seconds: float) -> _Message | None:
        """The next message, unless there is none for so many seconds."""
        with contextlib.suppress(queue.Empty):
            while True:
                message = self._outbox.get(timeout=seconds)
                self._unanswered -= 1
                if message.kind == "lost" or not self._forgotten:
                    return message
                self._forgotten -= 1
        if (self._thread is None or not self._thread.is_alive()) and self._outbox.empty():
            return _Message("lost", None)
        return None

    def end(self) -> str:
        """How the process ended, once its socket is closed."""
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
        """End the process; it has nothing to put in order. Its thread sees that and ends."""
        self._inbox.put(None)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()

    def join(self) -> None:
        self._process.join(5)
        if self._thread is not None:
            self._thread.join(5)
        self.socket.close()

    def _mind(self) -> None:
        try:
            while (frame := self._inbox.get()) is not None:
                _send(self.socket, frame)
                while (message := _received(self.socket)) is None:
                    self.signs_of_life += 1
                if self._finish is not None and message.kind == "done":
                    message = _Message("done", self._finish(message.content))
                self._outbox.put(message)
        except (EOFError, ConnectionError):
            self._outbox.put(_Message("lost", None))
        except BaseException as error:
            kind: Literal["short", "raised"] = "short" if is_shortage(error) else "raised"
            self._outbox.put(_Message(kind, _described(error) if kind == "short" else error))


def _end(minders: Sequence[_Minder]) -> None:
    for minder in minders:
        minder.kill()
    for minder in minders:
        minder.join()


def _chain(first: deque[T], then: Iterator[T]) -> Iterator[T]:
    while first:
        yield first.popleft()
    yield from then


def _described(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _leave_room(some: socket.socket) -> None:
    """Raise OSError where too few descriptors are left for the work itself."""
    taken: list[int] = []
    try:
        taken.extend(os.dup(some.fileno()) for _ in range(SPARE_DESCRIPTORS))
    finally:
        for descriptor in taken:
            os.close(descriptor)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """No advice on forking where there are threads, which is what torch's own loaders do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until the processes that start within can leave them to the run."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the other process.


def _serve(
    there: socket.socket,
    work: Callable[[Any, Alive], Any],
    prepare: Callable[[], None],
    run: int,
    shut: Sequence[socket.socket],
) -> None:
    """Answer tasks until nobody asks any more."""
    global _serving
    _serving = True
    for each in shut:
        each.close()
    _leave_signals(run)
    beat = _Beat(there)
    try:
        prepare()
        while True:
            _send(there, _answered(work, _received(there), beat))
    except (EOFError, ConnectionError):
        os._exit(0)  # the run is gone, or wants no more


def _answered(work: Callable[[Any, Alive], Any], task: Any, beat: Alive) -> list[Any]:
    try:
        return _framed(_Message("done", work(task, beat)))
    except Exception as error:
        if is_shortage(error):
            return _framed(_Message("short", _described(error)))
        told = "".join(traceback.format_exception(error))
        with contextlib.suppress(Exception):
            error.add_note(f"In a process of its own:\n{told}")
            frame = _framed(_Message("raised", error))
            pickle.loads(frame[1])
            return frame
        return _framed(_Message("raised", RuntimeError(told)))


def _leave_signals(run: int) -> None:
    """Ctrl-C and the like are the run's to act on, which still needs answers to finish its step. This process
    ends with the run, in whichever way that ends.
    """
    for number in LEFT_TO_THE_RUN:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_RUN)
    if not sys.platform.startswith("linux"):
        return  # it ends when it is done with its task, and finds its socket closed
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != run and multiprocessing.get_start_method() != "forkserver":
        os._exit(0)  # it died before that


class _Beat:
    """Sends a sign of life when it is called, about once in :data:`BEAT` seconds."""

    def __init__(self, there: socket.socket) -> None:
        self._there = there
        self._next = time.monotonic() + BEAT

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT
            self._there.sendall(FRAME.pack(0, 0))


# Through the socket.


def _framed(content: Any) -> list[Any]:
    """``content`` in parts to be sent one after the other; what is large is not copied."""
    buffers: list[memoryview] = []

    def apart(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    head = pickle.dumps(content, protocol=5, buffer_callback=apart)
    sizes = b"".join(LENGTH.pack(buffer.nbytes) for buffer in buffers)
    return [FRAME.pack(len(head), len(buffers)) + sizes, head, *buffers]


def _send(to: socket.socket, frame: list[Any]) -> None:
    for part in frame:
        to.sendall(part)


def _received(by: socket.socket) -> Any:
    """What was sent; None for a sign of life."""
    length, count = FRAME.unpack(_exactly(by, FRAME.size))
    if not length:
        return None
    sizes = [LENGTH.unpack(_exactly(by, LENGTH.size))[0] for _ in range(count)]
    head = _exactly(by, length)
    return pickle.loads(head, buffers=[_exactly(by, size) for size in sizes])


def _exactly(by: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        count = by.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return content
