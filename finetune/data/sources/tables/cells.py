"""Parse a CSV file into rows of cells: encoding, delimiter, quotes and trailing delimiters."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.dataset import quoted
from finetune.disk.regular import TABLE_BYTES, read_regular
from finetune.errors import DataError

# Delimiters and their names in messages, in the order in which they are tried.
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
# Excel's declaration of the delimiter, in a line before the header.
_SEP = re.compile(r'"?sep=(?P<delimiter>[^\r\n"]|\\t)"?[,;\t|]*(\r\n|\n|\r|$)', re.IGNORECASE)
REQUIRED_COLUMNS = ("path", "label")
# Common other names of these columns, for hints.
OTHER_NAMES = {
    "path": (
        "filename", "file_name", "filepath", "file_path", "file", "image_path", "img_path", "image", "img",
        "image_name", "image_file", "image_id", "picture", "photo", "filepaths", "paths", "name", "url", "id",
    ),
    "label": (
        "class", "class_name", "classname", "category", "category_name", "target", "labels", "species", "tag",
        "y", "ground_truth", "type", "diagnosis", "breed", "dx", "name", "class_id", "label_name",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """The cells of a table.

    Attributes:
        header: the column names as written.
        line: the line number of the header.
        rows: line number and cells; each row has as many cells as the header.
        faults: line number and message for each line that is not a valid row.
    """

    header: list[str]
    line: int
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)

    def find_column(self, column: str) -> int | None:
        """The index of a column, in any letter case; None if it does not exist."""
        names = [each.casefold() for each in self.header]
        wanted = column.strip().casefold()
        return names.index(wanted) if wanted in names else None

    def required_column(self, column: str) -> int:
        """The index of one of ``REQUIRED_COLUMNS``, which every table has."""
        return [each.casefold() for each in self.header].index(column)

    def column(self, place: int) -> list[str]:
        """The cells of the column at index ``place``, without outer spaces."""
        return [cells[place].strip() for _, cells in self.rows]


def read_cells(table: Path, name: str) -> Cells:
    """Parse a table whose header has at least the columns path and label.

    The delimiter is the comma, semicolon, tab or vertical bar that gives both columns. Excel's line
    ``sep=;``, empty lines and empty columns at the end are ignored.

    Args:
        name: the name of the table in messages.

    Raises:
        DataError: the file cannot be read or is not UTF-8, or its header lacks path or label or repeats one.
    """
    text = _read_text(table, name)
    declaration = _SEP.match(text)
    skipped = 1 if declaration else 0
    body = text[declaration.end() :] if declaration else text
    if not body.strip():
        raise DataError(f"{name}: empty file. Write a header (path,label) and one row per image")
    delimiter = _delimiter(body)
    reader = csv.reader(io.StringIO(body, newline=""), strict=True, delimiter=delimiter)
    lines = _lines(reader, skipped, DELIMITERS[delimiter])
    cells = Cells([], 0)
    for line, row in lines:
        if isinstance(row, str):
            if not cells.header:
                raise DataError(f"{name}:{line}: {row}")
            cells.faults.append((line, row))
            continue
        while row and not row[-1].strip() and (not cells.header or len(row) > len(cells.header)):
            row.pop()
        if not row or not any(cell.strip() for cell in row):
            continue
        if not cells.header:
            _check_header(row, f"{name}:{line}", delimiter)
            cells = Cells([cell.strip() for cell in row], line)
        elif len(row) != len(cells.header):
            cells.faults.append((line, _row_length_fault(row, len(cells.header), delimiter)))
        else:
            cells.rows.append((line, row))
    return cells


def _lines(reader: Any, skipped: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Each row with its first line number. A broken quote gives an error message as the last item."""
    while True:
        line = reader.line_num + 1 + skipped
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # After a broken quote, the remaining rows cannot be separated.
            message = str(error).replace("','", f"a {delimiter}").replace("';'", f"a {delimiter}")
            yield line, f"{message}; double the quotes inside a quoted field"
            return


def _row_length_fault(row: list[str], wanted: int, delimiter: str) -> str:
    number = "1 field" if len(row) == 1 else f"{len(row)} fields"
    more = f"; put quotes around a field that contains a {DELIMITERS[delimiter]}" if len(row) > wanted else ""
    return f"{number}, but the header has {wanted}{more}"


def _delimiter(text: str) -> str:
    """The delimiter that gives the columns path and label; else the one that gives most columns."""
    columns = {}
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            header = next((row for row in reader if any(cell.strip() for cell in row)), [])
        except csv.Error:
            header = []
        names = {cell.strip().casefold() for cell in header}
        if names.issuperset(REQUIRED_COLUMNS):
            return delimiter
        columns[delimiter] = len(header)
    return max(columns, key=columns.__getitem__)


def _check_header(row: list[str], where: str, delimiter: str) -> None:
    names = [cell.strip().casefold() for cell in row]
    if missing := [column for column in REQUIRED_COLUMNS if column not in names]:
        hints: list[str] = []
        for column in missing:
            other = next((each for each in OTHER_NAMES[column] if each in names), None)
            if other is not None and not (column == "label" and hints and f"'{other}'" in hints[0]):
                hints.append(f"'{row[names.index(other)].strip()}' to {column}")
        example = delimiter.join(("path", "label", "split"))
        raise DataError(
            f"{where}: the header lacks {' and '.join(missing)}. The first line must name the "
            f"columns, as in {example}; it has {quoted(row)}."
            + (f" If these are the columns, rename {' and '.join(hints)}." if hints else "")
        )
    for column in (*REQUIRED_COLUMNS, "split"):
        if names.count(column) > 1:
            raise DataError(f"{where}: the header has the column {column} more than once. Keep one")


def _read_text(table: Path, name: str) -> str:
    try:
        data = read_regular(table, TABLE_BYTES)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name}: UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise DataError(f"{name}: not a text file. A source is a folder or a CSV file (path,label[,split]).")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(
            f"{name}:{line}: not UTF-8 (byte 0x{byte:02x}); save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from None
    if not text.strip():
        raise DataError(f"{name}: empty file. Write a header (path,label) and one row per image")
    return text
