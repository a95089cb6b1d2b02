"""stdout that cannot be written: an error like any other, in place of a traceback."""

import contextlib
import os
from pathlib import Path
from typing import Any, TextIO

from finetune.errors import SaveError


class Stdout:
    """A stream that ends the command where it cannot be written.

    With :class:`SaveError`; and where only its reader has gone, as ``| head`` does, without a word. In place
    of a stream that is closed there is one that leads nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        # To the process's end, as stdout is.
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
        # What the stream still holds back would be tried once more, and told of, as Python ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            return SystemExit(1)
        return SaveError(f"stdout: cannot be written ({error.strerror})")
