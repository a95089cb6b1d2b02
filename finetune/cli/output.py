"""Print for the user: data on stdout, everything else on stderr.

Control characters in names are escaped, so that none reaches the terminal.
"""

import contextlib
import logging
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from finetune.errors import plain

# Options that may stand anywhere on the command line.
QUIET = ("--quiet", "-q")
# Columns of a line that goes to a file or a pipe.
LOG_WIDTH = 120

_quiet = False


def data(text: str) -> None:
    """Print a line of the command's result."""
    sys.stdout.write(plain(text) + "\n")


def note(text: str) -> None:
    """Print a line of information, unless --quiet is given."""
    if not _quiet:
        error(text)


def error(text: str) -> None:
    """Print a line even under --quiet, after everything that was printed before it."""
    try:
        sys.stdout.flush()
    finally:
        # The terminal may be closed by now; that is no reason to fail.
        with contextlib.suppress(OSError):
            sys.stderr.write(plain(text) + "\n")


def warn(text: str) -> None:
    """Print a warning."""
    error(f"warning: {text}")


def set_quiet(quiet: bool) -> None:
    """Turn notes and progress off, or on again."""
    global _quiet
    _quiet = quiet


def shows_progress() -> bool:
    """Whether to show progress bars: on a terminal, unless --quiet is given."""
    return sys.stderr.isatty() and not _quiet


def percent(fraction: float, digits: int = 1) -> str:
    """Write 0.9375 as ``93.8 %``."""
    return f"{100 * fraction:.{digits}f} %"


def interval(top1: float, low: float, high: float, n: int) -> str:
    """Write an accuracy with its 95 % Wilson interval: ``93.8 % [91.0 to 95.7] (n = 400)``."""
    return f"{percent(top1)} [{100 * low:.1f} to {100 * high:.1f}] (n = {n:,})"


def width() -> int:
    """Columns of a line on stdout: of the terminal, of ``COLUMNS``, or of a log."""
    return shutil.get_terminal_size((LOG_WIDTH, 24)).columns


def aligned(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Align names and values in two columns."""
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs]


def show_log() -> None:
    """Print the library's log with :func:`note` and :func:`warn`."""
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
