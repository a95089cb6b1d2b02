"""A CSV file that lists images: ``path,label`` or ``path,label,split``."""

import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions, quoted
from finetune.data.sources.files.from_paths import source_from_paths
from finetune.data.sources.names.class_names import equivalent_names, is_class_name
from finetune.data.sources.tables.cells import NEEDED, Cells, read_cells
from finetune.data.sources.tables.paths import find_paths
from finetune.data.sources.tables.split_columns import SplitColumn, find_split_column
from finetune.errors import DataError, printable

# Beyond so many faults, the rest is counted.
FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Row:
    """A row that says all it must: the line, the path as it is written, the label and the split ("": none).

    ``file`` is where the image is, once that is known.
    """

    line: int
    path: str
    label: str
    split: str
    file: str = ""


@dataclass(frozen=True)
class Fault:
    """What is wrong in one line.

    ``what`` is the same for all faults of its kind; ``about`` says which path or label it is. ``kind`` is
    one that the doctor knows. ``file`` is the row's image, if it names one. ``told``: another fault tells
    of many like this one.
    """

    line: int
    what: str
    kind: str = "faulty-row"
    about: str = ""
    file: str = ""
    told: bool = False


@dataclass
class Table:
    """A table as it was found: its sound ``rows``, and all ``faults`` of the others."""

    name: str
    folder: Path
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def splits(self) -> dict[str, dict[str, list[str]]]:
        """Split -> label -> files, of the sound rows; the one split `all` where the table has none."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            found[row.split or "all"][_class_name(row.label)].append(row.file)
        return {split: found[split] for split in ("all", "train", "val", "test") if split in found}

    def source(self) -> Source:
        """The data set of all rows.

        Raises:
            DataError: every fault with its line number, the first ten in full; or a data set that cannot be.
        """
        if self.faults:
            raise DataError("\n".join(self._told()))
        if not self.rows:
            raise DataError(f"{self.name}: a header, but no rows: list the images, one a line")
        found = self.splits()
        if "all" not in found and "train" not in found:
            raise DataError(f"{self.name}: no row has the split train, only {quoted(sorted(found))}")
        notes = list(self.notes)
        if list(found) == ["train"]:
            notes.append(f"{self.name}: every row's split is train; val and test are carved out of it")
            found = {"all": found["train"]}
        return source_from_paths(self.name, found, notes, os.path.normpath(self.folder))

    def _told(self) -> list[str]:
        faults = sorted((fault for fault in self.faults if not fault.told), key=lambda each: each.line)
        lines = [
            f"{self.name}:{each.line}: {f'{each.about}: ' if each.about else ''}{each.what}"
            for each in faults[:FAULTS_SHOWN]
        ]
        if len(faults) > FAULTS_SHOWN:
            lines.append(
                f"... and {len(faults) - FAULTS_SHOWN} more faults (`finetune doctor` lists them all)"
            )
        return lines


def read_table(table: Path, reading: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Read a CSV file: a header with the columns path and label, perhaps split, in any order, among others.

    UTF-8, with or without a byte-order mark; commas, semicolons, tabs or vertical bars; quotes as in RFC
    4180. Relative paths start at the file's own folder. Labels are taken as they are written (``no``,
    ``007``, ``1e3``), without outer spaces. The split is train, val or test, by any of their names, in every
    row or in none; another column than `split` may tell it (:func:`find_split_column`).

    Raises:
        DataError: every fault with its line number, the first ten in full: wrong encoding, missing columns,
            rows too short or too long, an empty label, an unknown split, a column that may be the split or
            not, a file that is missing or listed twice with different answers, labels that differ in case,
            spaces or Unicode form only, a label in val or test that train lacks.
    """
    return examine_table(table, reading).source()


def examine_table(table: Path, reading: SourceOptions = DEFAULT_OPTIONS) -> Table:
    """As :func:`read_table`, with all faults found and none raised.

    Raises:
        DataError: it is no table: it cannot be read, or its header lacks path or label.
    """
    name = printable(str(table))
    cells = read_cells(table, name)
    found = Table(name, table.parent, faults=[Fault(line, what) for line, what in cells.faults])
    passed_over = [reading.group_column] if reading.group_column else []
    split = find_split_column(cells, reading.split_column, passed_over)
    if split.doubt:
        found.faults.append(Fault(cells.line, split.doubt, "unusable"))
        split = SplitColumn()
    found.notes.extend(f"{name}: {note}" for note in split.notes)
    _note_unused(cells, split, reading, found)
    path, label = (cells.header_place(column) for column in NEEDED)
    rows = [row for line, each in cells.rows if (row := _row(line, each, path, label, split, found))]
    rows = _with_files(rows, found)
    rows = _without_repeats(rows, found)
    _check_spelling(rows, found)
    found.rows = _check_splits(rows, found)
    return found


def column_values(table: Path, column: str) -> dict[str, str]:
    """Of a file that :func:`read_table` takes: an image's path -> what the row says in another ``column``.

    Raises:
        DataError: there is no such column, or an image's rows say different things.
    """
    name = printable(str(table))
    cells = read_cells(table, name)
    place, path = cells.place(column), cells.header_place("path")
    if place is None or [each.casefold() for each in cells.header].count(column.strip().casefold()) > 1:
        raise DataError(
            f"{name}: there must be one column '{printable(column)}'; it has {quoted(cells.header)}"
        )
    files = find_paths([row[path] for _, row in cells.rows], table.parent).paths
    values: dict[str, str] = {}
    for (_, row), file in zip(cells.rows, files, strict=True):
        if values.setdefault(file, row[place].strip()) != row[place].strip():
            raise DataError(f"{name}: {printable(row[path])} has two values in column '{printable(column)}'")
    return values


def has_column(table: Path, column: str) -> bool:
    """Whether a table has a column of that name, whatever its case; DataError if it is no table."""
    return read_cells(table, printable(str(table))).place(column) is not None


def _class_name(label: str) -> str:
    return unicodedata.normalize("NFC", label.strip())


def _note_unused(cells: Cells, split: SplitColumn, reading: SourceOptions, found: Table) -> None:
    used = {"path", "label", (reading.group_column or "").strip().casefold()}
    unused = [
        each
        for place, each in enumerate(cells.header)
        if each and each.casefold() not in used and place not in split.columns
    ]
    empty = reading.split_column is None and not split.columns
    unused = [each for each in unused if not (empty and each.casefold() == "split")]
    if unused:
        found.notes.append(f"{found.name}: columns that were not used: {quoted(unused)}")


def _row(
    line: int, row: list[str], path_place: int, label_place: int, split: SplitColumn, found: Table
) -> Row | None:
    """A row, if it is sound by itself; what is wrong with it is noted."""
    path, label = row[path_place], row[label_place]
    faults = []
    if not path.strip():
        faults.append("the path is empty")
    if not label.strip():
        faults.append("the label is empty")
    elif not is_class_name(label.strip()):
        faults.append(f"the label '{printable(label)}' has control characters in it")
    said = split.tell(row)
    if said is None:
        faults.append(f"unknown split '{printable(split.shown(row))}'; train, val or test")
    file = os.path.normpath(os.path.join(found.folder, path)) if path.strip() else ""  # noqa: PTH118
    found.faults.extend(Fault(line, what, file=file) for what in faults)
    return None if faults else Row(line, path, label, said or "")


def _with_files(rows: list[Row], found: Table) -> list[Row]:
    """Rows whose files are there, with these."""
    looked = find_paths([row.path for row in rows], found.folder)
    found.notes.extend(f"{found.name}: {note}" for note in looked.notes)
    told: set[int] = set()
    for remark, places in looked.remarks:
        found.faults.append(Fault(rows[places[0]].line, remark, "unusable"))
        told.update(places)
    for place, what in looked.missing.items():
        row, file = rows[place], looked.paths[place]
        found.faults.append(
            Fault(row.line, what, "missing-file", printable(row.path), file, told=place in told)
        )
    return [
        Row(row.line, row.path, row.label, row.split, file)
        for place, (row, file) in enumerate(zip(rows, looked.paths, strict=True))
        if place not in looked.missing
    ]


def _without_repeats(rows: list[Row], found: Table) -> list[Row]:
    """An image listed twice is kept once, if both rows say the same."""
    kept: dict[str, Row] = {}
    repeats = 0
    for row in rows:
        first = kept.setdefault(row.file, row)
        if first is row:
            continue
        about = printable(row.path)
        if first.label != row.label:
            what = f"'{printable(row.label)}' here, but '{printable(first.label)}' in line {first.line}"
            found.faults.append(Fault(row.line, f"{about} is {what}", "contradiction", file=row.file))
        elif first.split != row.split:
            what = (
                f"{about} is in {row.split or 'no split'} here, but in {first.split or 'no split'} in line "
                f"{first.line}; an image belongs to one split"
            )
            found.faults.append(Fault(row.line, what, "leakage", file=row.file))
        else:
            repeats += 1
    if repeats:
        found.notes.append(f"{found.name}: rows that repeat an earlier one were left out ({repeats})")
    return list(kept.values())


def _check_spelling(rows: list[Row], found: Table) -> None:
    """Labels that differ in case, spaces or Unicode form only are one class, and never two."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.label, row)
    for later, earlier in equivalent_names(first):
        row = first[later]
        what = (
            f"the label '{printable(later)}' differs from '{printable(earlier)}' in line "
            f"{first[earlier].line} in case, spaces or Unicode form only; write both the same way"
        )
        found.faults.append(Fault(row.line, what, "class-names", file=row.file))


def _check_splits(rows: list[Row], found: Table) -> list[Row]:
    """Every row has a split, or none has."""
    if not any(row.split for row in rows):
        return rows
    for row in rows:
        if not row.split:
            what = "the split is empty; give every row one, or remove the column"
            found.faults.append(Fault(row.line, what, file=row.file))
    return [row for row in rows if row.split]
