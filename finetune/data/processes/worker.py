"""A worker process as the main process sees it, with the thread that exchanges messages with it."""

import contextlib
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from finetune.data.processes.callbacks import Heartbeat
from finetune.data.processes.child import serve
from finetune.data.processes.messages import Frame, Message, describe, is_shortage, receive, send, to_frame


class Worker:
    """A worker process.

    A thread sends tasks and receives results. So the process has its next task while the main process handles
    a result, and the main process can stop waiting for a result.

    Attributes:
        heartbeats: the number of heartbeats received.
        connection: the socket to the process.
    """

    def __init__(
        self,
        context: Any,
        work: Callable[[Any, Heartbeat], Any],
        prepare: Callable[[], None],
        finish: Callable[[Any], Any] | None,
        siblings: "Sequence[Worker]",
    ) -> None:
        self.heartbeats = 0
        self._finish = finish
        self._pending = 0
        self._discarded = 0
        self._inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.connection, theirs = socket.socketpair()
        inherited: list[socket.socket] = []
        if context.get_start_method() == "fork":
            inherited = [*(each.connection for each in siblings), self.connection]
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
            kind: Literal["short", "raised"] = "short" if is_shortage(error) else "raised"
            self._outbox.put(Message(kind, describe(error) if kind == "short" else error))


def end_workers(workers: Sequence[Worker]) -> None:
    """Kill all workers, and wait for their end."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
