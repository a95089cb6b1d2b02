"""Stop on Ctrl-C, SIGTERM and SIGHUP: the first signal stops in order, a second one ends the process."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from finetune.errors import StoppedError

T = TypeVar("T")

# Sent when a terminal is closed, on systems that have it.
HANG_UP: int | None = getattr(signal, "SIGHUP", None)


class Signals:
    """Record SIGINT, SIGTERM and SIGHUP while entered, in the main thread; :meth:`check` acts on them.

    A SIGHUP that is ignored, as under ``nohup``, stays ignored. A second SIGHUP changes nothing, because both
    the kernel and the shell send one when a terminal is closed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
            if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:
                self._before[HANG_UP] = signal.signal(HANG_UP, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # a handler that was not set from Python cannot be restored
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == HANG_UP:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number

    def check(self) -> None:
        """Raise :class:`StoppedError` if a signal has arrived. Call it only when the state can be saved."""
        if self.received is not None:
            name = signal.Signals(self.received).name
            raise StoppedError(f"stopped by {name}; continue with --resume", 128 + self.received)

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """Yield ``items``, with a check before each."""
        for item in items:
            self.check()
            yield item
