"""Print a table on stdout, as wide as the terminal, or as wide as needed for a file or pipe."""

import sys
from collections.abc import Sequence

from finetune.cli import output
from finetune.errors import plain

# Columns for a file or pipe: wider than any table, so that no name is wrapped.
UNBOUNDED = 1000


def show(columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings. Each column is a heading and whether it holds numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, numeric in columns:
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        table.add_row(*map(plain, row))
    console = Console(width=None if sys.stdout.isatty() else UNBOUNDED, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        output.data(line.rstrip())
