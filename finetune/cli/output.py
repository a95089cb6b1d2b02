"""What the user reads: data on stdout, everything else on stderr.

Whatever names stand in it, nothing of that steers the terminal.
"""

import contextlib
import logging
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from finetune.errors import plain

# By which a user asks for no more than data, warnings and errors, anywhere on the command line.
QUIET = ("--quiet", "-q")
# Of what goes to a file or a pipe, where lines have to be cut at all.
LOG_WIDTH = 120

_quiet = False


def data(text: str) -> None:
    """A line of what the command was asked for."""
    sys.stdout.write(plain(text) + "\n")


def note(text: str) -> None:
    """A line about it, where the user wants more than data and errors."""
    if not _quiet:
        error(text)


def error(text: str) -> None:
    """A line that is told in any case; in a file that gets data too, after all that was said before."""
    try:
        sys.stdout.flush()
    finally:
        # Where nobody can read it any more, as when the terminal was closed, that is no reason to fail.
        with contextlib.suppress(OSError):
            sys.stderr.write(plain(text) + "\n")


def warn(text: str) -> None:
    """A line that should not be missed."""
    error(f"warning: {text}")


def be_quiet(quiet: bool) -> None:
    """Leave out notes and progress from now on, or have them again."""
    global _quiet
    _quiet = quiet


def shows_progress() -> bool:
    """Whether someone watches stderr, and wants to see how far things are."""
    return sys.stderr.isatty() and not _quiet


def percent(fraction: float, digits: int = 1) -> str:
    """0.9375 as ``93.8 %``."""
    return f"{100 * fraction:.{digits}f} %"


def interval(top1: float, low: float, high: float, n: int) -> str:
    """An accuracy with its 95 % Wilson interval: ``93.8 % [91.0 to 95.7] (n = 400)``."""
    return f"{percent(top1)} [{100 * low:.1f} to {100 * high:.1f}] (n = {n:,})"


def width() -> int:
    """Cells of a line on stdout: those of the terminal (or of ``COLUMNS``), or what a log is read at."""
    return shutil.get_terminal_size((LOG_WIDTH, 24)).columns


def aligned(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names and values in two columns."""
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs]


def show_log() -> None:
    """Send the library's notes and warnings to stderr, as :func:`note` and :func:`warn` do."""
    logger = logging.getLogger("finetune")
    if not logger.handlers:
        logger.addHandler(_Handler())
        logger.propagate = False
    logger.setLevel(logging.WARNING if _quiet else logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        message: Any = record.getMessage()
        if record.levelno >= logging.WARNING:
            warn(message)
        else:
            note(message)
