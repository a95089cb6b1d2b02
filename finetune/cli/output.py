"""Print for the user: data on stdout, everything else on stderr.

Control characters in names are escaped, so that none reaches the terminal.
"""

import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import plain

if TYPE_CHECKING:
    from finetune.evaluation.metrics import Metrics

# Options that may stand anywhere on the command line.
QUIET = ("--quiet", "-q")
# Columns of a line that goes to a file or a pipe.
LOG_WIDTH = 120
# Columns of a table that goes there: wider than any, so that no name is wrapped.
TABLE_WIDTH = 1000

_quiet = False


def data(text: str) -> None:
    """Print a line of the command's result."""
    sys.stdout.write(plain(text) + "\n")


def json_data(value: object, **style: Any) -> None:
    """Print a value as JSON, in the ``style`` of :func:`json.dumps`."""
    data(json.dumps(value, **style))


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


def accuracy(of: "Metrics") -> str:
    """Write top-1 with its 95 % interval: ``93.8 % [91.0 to 95.7] (n = 400 in 31 groups)``."""
    return f"{percent(of.top1)} [{100 * of.top1_low:.1f} to {100 * of.top1_high:.1f}] ({of.counted})"


def width() -> int:
    """Columns of a line on stdout: of the terminal, of ``COLUMNS``, or of a log."""
    return shutil.get_terminal_size((LOG_WIDTH, 24)).columns


def table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows, which map headings to cells. ">" before a heading marks a column of numbers."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for heading in rows[0]:
        numbers = heading.startswith(">")
        justify: Literal["right", "left"] = "right" if numbers else "left"
        grid.add_column(heading.removeprefix(">"), justify=justify, overflow="fold", no_wrap=numbers)
    for row in rows:
        grid.add_row(*map(plain, row.values()))
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(grid)
    for line in capture.get().splitlines():
        data(line.rstrip())


def show_log() -> None:
    """Print the library's log with :func:`note` and :func:`warn`."""
    logger = logging.getLogger("finetune")
    if not logger.handlers:
        logger.addHandler(_Handler())
        logger.propagate = False
    logger.setLevel(logging.WARNING if _quiet else logging.INFO)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        show = warn if record.levelno >= logging.WARNING else note
        show(record.getMessage())
