"""The table of doubtful labels: the doctor writes it, a person goes over it, and `finetune relabel` reads it.

The column ``new_label`` is empty at first. A person writes the right class there. An empty cell means that
nothing was decided, so that a table which nobody looked at changes no label. The column is not the last one,
because some spreadsheets leave out empty cells at the end of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.dataset import quoted
from finetune.data.sources.tables.cells import Cells, read_cells
from finetune.disk.csv_table import unguarded
from finetune.errors import DataError, printable

NEW = "new_label"
SUGGESTED = "suggested"
COLUMNS = ("path", "label", SUGGESTED, NEW, "probability", "suggested_probability", "sure")
YES, NO = "yes", "no"


@dataclass(frozen=True)
class ReviewRow:
    """A row after a person went over it.

    Attributes:
        line: in the file.
        path: of the image in its source, as the doctor wrote it.
        label: the class that the image had then.
        suggested: the class that it looks like; empty if there is no such column.
        new: the right class; empty: nothing was decided.
    """

    line: int
    path: str
    label: str
    suggested: str
    new: str


def read_review(table: Path) -> tuple[list[ReviewRow], list[tuple[int, str]]]:
    """Read the rows, and the faults of the lines that are no rows, as line number and message.

    Spreadsheets may have changed the delimiter, the order of the columns and the ends of lines, and added a
    byte-order mark; other columns do not matter. An apostrophe before a formula is taken away.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or lacks a column.
    """
    name = printable(str(table))
    cells = read_cells(table, name)
    path, label = (cells.required_column(column) for column in COLUMNS[:2])
    suggested, new = (_column(cells, column, name) for column in (SUGGESTED, NEW))
    if suggested is None and new is None:
        raise DataError(
            f"{name}:{cells.line}: there is no column {NEW}, which holds the right class of an image. The "
            f"columns are {quoted(cells.header)}. `finetune doctor SOURCE --labels --csv FILE.csv` writes "
            "such a table."
        )

    def text(row: Sequence[str], place: int | None) -> str:
        return "" if place is None else unguarded(row[place].strip())

    rows = [
        ReviewRow(line, unguarded(row[path]), text(row, label), text(row, suggested), text(row, new))
        for line, row in cells.rows
    ]
    return rows, cells.faults


def _column(cells: Cells, column: str, name: str) -> int | None:
    """The place of a column; None if it does not exist."""
    if [each.casefold() for each in cells.header].count(column) > 1:
        raise DataError(f"{name}:{cells.line}: the header has the column {column} more than once. Keep one")
    return cells.find_column(column)
