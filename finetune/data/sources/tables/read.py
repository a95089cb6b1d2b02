"""Read a CSV file that lists images: ``path,label`` or ``path,label,split``."""

import os
from pathlib import Path

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions, quoted
from finetune.data.sources.names.class_names import equivalent_names, is_class_name
from finetune.data.sources.tables.cells import REQUIRED_COLUMNS, Cells, read_cells
from finetune.data.sources.tables.paths import find_paths
from finetune.data.sources.tables.split_columns import SplitColumn, find_split_column
from finetune.data.sources.tables.table import Fault, Row, Table
from finetune.disk.csv_table import unguarded
from finetune.errors import DataError, printable


def read_table(table: Path, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Read a CSV file whose header has the columns path and label and optionally split, in any order.

    The file is UTF-8, with or without a byte-order mark. Columns are separated by commas, semicolons, tabs or
    vertical bars; quoting follows RFC 4180. Relative paths start at the folder of the CSV file. Labels are
    strings (``no``, ``007``, ``1e3``) without outer spaces, and without the apostrophe that keeps a
    spreadsheet from running them as a formula. All rows or none have a split: train, val or test or a
    synonym. Another column may hold the split (:func:`find_split_column`).

    Raises:
        DataError: the message lists the first ten faults with line numbers. Faults are a wrong encoding,
            missing columns, rows that are too short or too long, empty labels, unknown splits, an ambiguous
            split column, missing files, a file listed twice with different labels or splits, labels that
            differ only in case, spaces or Unicode form, and labels in val or test that train lacks.
    """
    return examine_table(table, options).source()


def examine_table(table: Path, options: SourceOptions = DEFAULT_OPTIONS) -> Table:
    """Read a CSV file like :func:`read_table`, but collect its faults instead of raising them.

    Raises:
        DataError: the file cannot be read, or its header lacks path or label.
    """
    name = printable(str(table))
    cells = read_cells(table, name)
    found = Table(name, table.parent, faults=[Fault(line, message) for line, message in cells.faults])
    ignored = [options.group_column] if options.group_column else []
    split = find_split_column(cells, options.split_column, ignored)
    if split.problem:
        found.faults.append(Fault(cells.line, split.problem, "unusable"))
        split = SplitColumn()
    found.notes.extend(f"{name}: {note}" for note in split.notes)
    _note_unused(cells, split, options, found)
    path, label = (cells.required_column(column) for column in REQUIRED_COLUMNS)
    rows = [row for line, each in cells.rows if (row := _row(line, each, path, label, split, found))]
    rows = _with_files(rows, found)
    rows = _without_repeats(rows, found)
    _check_spelling(rows, found)
    found.rows = _check_splits(rows, found)
    return found


def column_values(table: Path, column: str) -> dict[str, str]:
    """The values of one column of a CSV file: path of the image file -> cell.

    Raises:
        DataError: the column does not exist, or an image has two values.
    """
    name = printable(str(table))
    cells = read_cells(table, name)
    place, path = cells.find_column(column), cells.required_column("path")
    if place is None or [each.casefold() for each in cells.header].count(column.strip().casefold()) > 1:
        raise DataError(
            f"{name}: there must be exactly one column '{printable(column)}'; the columns are "
            f"{quoted(cells.header)}"
        )
    files = find_paths([row[path] for _, row in cells.rows], table.parent).paths
    values: dict[str, str] = {}
    for (_, row), file in zip(cells.rows, files, strict=True):
        value = unguarded(row[place].strip())
        if values.setdefault(file, value) != value:
            raise DataError(f"{name}: {printable(row[path])} has two values in column '{printable(column)}'")
    return values


def other_columns(table: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The columns beside path, label and split: their names, and path of the image file -> cells.

    Of rows that repeat an image, the first counts.

    Raises:
        DataError: the file cannot be read.
    """
    cells = read_cells(table, printable(str(table)))
    own = {*REQUIRED_COLUMNS, "split"}
    places = [place for place, each in enumerate(cells.header) if each and each.casefold() not in own]
    path = cells.required_column("path")
    files = find_paths([row[path] for _, row in cells.rows], table.parent).paths
    values: dict[str, list[str]] = {}
    for (_, row), file in zip(cells.rows, files, strict=True):
        values.setdefault(file, [unguarded(row[place]) for place in places])
    return [cells.header[place] for place in places], values


def has_column(table: Path, column: str) -> bool:
    """Whether a CSV file has the column, in any letter case; DataError if the file cannot be read."""
    return read_cells(table, printable(str(table))).find_column(column) is not None


def _note_unused(cells: Cells, split: SplitColumn, options: SourceOptions, found: Table) -> None:
    used = {"path", "label", (options.group_column or "").strip().casefold()}
    unused = [
        each
        for place, each in enumerate(cells.header)
        if each and each.casefold() not in used and place not in split.columns
    ]
    empty = options.split_column is None and not split.columns
    unused = [each for each in unused if not (empty and each.casefold() == "split")]
    if unused:
        found.notes.append(f"{found.name}: ignored columns: {quoted(unused)}")


def _row(
    line: int, row: list[str], path_place: int, label_place: int, split: SplitColumn, found: Table
) -> Row | None:
    """The row if it is valid by itself; otherwise None, and its faults are added to ``found``."""
    path, label = row[path_place], unguarded(row[label_place])
    faults = []
    if not path.strip():
        faults.append("the path is empty")
    if not label.strip():
        faults.append("the label is empty")
    elif not is_class_name(label.strip()):
        faults.append(f"the label '{printable(label)}' contains control characters")
    split_value = split.split_of_row(row)
    if split_value is None:
        faults.append(f"unknown split '{printable(split.cells_text(row))}'; use train, val or test")
    file = os.path.normpath(os.path.join(found.folder, path)) if path.strip() else ""  # noqa: PTH118
    found.faults.extend(Fault(line, message, file=file) for message in faults)
    return None if faults else Row(line, path, label, split_value or "")


def _with_files(rows: list[Row], found: Table) -> list[Row]:
    """The rows whose image files exist, with ``file`` set; faults for the others."""
    matches = find_paths([row.path for row in rows], found.folder)
    found.notes.extend(f"{found.name}: {note}" for note in matches.notes)
    covered: set[int] = set()
    for cause, places in matches.shared_causes:
        found.faults.append(Fault(rows[places[0]].line, cause, "unusable"))
        covered.update(places)
    for place, message in matches.missing.items():
        row, file = rows[place], matches.paths[place]
        found.faults.append(
            Fault(row.line, message, "missing-file", printable(row.path), file, is_covered=place in covered)
        )
    return [
        Row(row.line, row.path, row.label, row.split, file)
        for place, (row, file) in enumerate(zip(rows, matches.paths, strict=True))
        if place not in matches.missing
    ]


def _without_repeats(rows: list[Row], found: Table) -> list[Row]:
    """The rows without repeated images; faults where repeated rows have different labels or splits."""
    first_rows: dict[str, Row] = {}
    repeats = 0
    for row in rows:
        first = first_rows.setdefault(row.file, row)
        if first is row:
            continue
        path = printable(row.path)
        if first.label != row.label:
            message = f"'{printable(row.label)}' here, but '{printable(first.label)}' in line {first.line}"
            found.faults.append(Fault(row.line, f"{path} is {message}", "contradiction", file=row.file))
        elif first.split != row.split:
            message = (
                f"{path} is in {row.split or 'no split'} here, but in {first.split or 'no split'} in line "
                f"{first.line}; an image belongs to one split"
            )
            found.faults.append(Fault(row.line, message, "leakage", file=row.file))
        else:
            repeats += 1
    if repeats:
        found.notes.append(f"{found.name}: skipped rows that repeat an earlier row ({repeats})")
    return list(first_rows.values())


def _check_spelling(rows: list[Row], found: Table) -> None:
    """Add faults for labels that differ only in case, spaces or Unicode form."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.label, row)
    for later, earlier in equivalent_names(first):
        row = first[later]
        message = (
            f"the label '{printable(later)}' differs from '{printable(earlier)}' in line "
            f"{first[earlier].line} only in case, spaces or Unicode form; write both the same way"
        )
        found.faults.append(Fault(row.line, message, "class-names", file=row.file))


def _check_splits(rows: list[Row], found: Table) -> list[Row]:
    """Add faults for rows without a split if other rows have one."""
    if not any(row.split for row in rows):
        return rows
    for row in rows:
        if not row.split:
            message = "the split is empty; give every row a split, or remove the column"
            found.faults.append(Fault(row.line, message, file=row.file))
    return [row for row in rows if row.split]
