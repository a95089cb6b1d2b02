"""``sorted.csv``: the table of sorted images, one row per image, with its class and its place. Torch-free."""

import csv
import io
from pathlib import Path

from finetune.disk.csv_table import unguarded
from finetune.disk.outputs import write_table
from finetune.disk.regular import TABLE_BYTES, read_regular_text
from finetune.errors import UserError, printable

TABLE = "sorted.csv"
HEADER = ["path", "class", "probability", "placed", "error"]


def read_placed(path: Path) -> dict[str, str]:
    """Read where earlier runs placed each image: path to place below the folder. Empty without a table.

    Raises:
        UserError: the file is not such a table.
    """
    return {row[0]: row[3] for row in _read_rows(path)}


def write_rows(stage: Path, target: Path, rows: dict[str, list[str]]) -> None:
    """Add ``rows``, by path, to the table ``target``; a row replaces an earlier one for the same path."""
    merged = {row[0]: row for row in _read_rows(target)} | rows
    write_table([HEADER, *merged.values()], stage, target, safe=True)


def _read_rows(path: Path) -> list[list[str]]:
    try:
        text = read_regular_text(path, TABLE_BYTES)
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{printable(str(path))}: cannot be read ({error}).") from None
    if not rows or rows[0] != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise UserError(
            f"{printable(str(path))}: not a table that an earlier sorting wrote. Move it away, or choose "
            "another folder."
        )
    return [[unguarded(cell) for cell in row] for row in rows[1:]]
