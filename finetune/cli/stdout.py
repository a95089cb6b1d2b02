"""End the command with an error message, not a traceback, when stdout cannot be written."""

import contextlib
import os
from pathlib import Path
from typing import Any, TextIO

from finetune.errors import SaveError


class Stdout:
    """Wraps stdout: a failed write raises :class:`SaveError`.

    If only the reader is gone, as with ``| head``, the command ends silently. A closed stdout is replaced by
    the null device.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # Stays open until the process ends, as stdout does.
        self._stream = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._lost(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._lost(error) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lost(self, error: OSError) -> BaseException:
        # Python would write the stream's buffer once more at exit, and report the failure.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            return SystemExit(1)
        return SaveError(f"stdout: cannot be written ({error.strerror})")
