"""A CSV file that lists pictures: ``path,label`` or ``path,label,split``."""

import codecs
import csv
import io
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from finetune.data.sources.dataset import SPLIT_NAMES, Source, is_class_name, listed, source_of_files
from finetune.errors import DataError, printable

# Beyond so many faults, the rest is counted.
FAULTS_SHOWN = 10
# A label this much rarer than one that looks like it is worth a remark.
RARE = 20
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str


@dataclass
class _Faults:
    """All faults of one file, to be told at once, in the order of the lines."""

    name: str
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, message: str) -> None:
        self.found.append((line, message))

    def settle(self) -> None:
        """Raise what was found, if anything was."""
        if not self.found:
            return
        lines = [f"{self.name}:{line}: {message}" for line, message in sorted(self.found)[:FAULTS_SHOWN]]
        if len(self.found) > FAULTS_SHOWN:
            lines.append(f"... and {len(self.found) - FAULTS_SHOWN} more faults")
        raise DataError("\n".join(lines))


def read_table(table: Path) -> Source:
    """Read a CSV file: a header with the columns path and label, perhaps split, in any order, among others.

    UTF-8, with or without a byte-order mark; commas; quotes as in RFC 4180. Relative paths start at the
    file's own folder. Labels are taken as they are written (``no``, ``007``, ``1e3``), without outer spaces.
    The split is train, val (valid, validation) or test, in every row or in none.

    Raises:
        DataError: every fault with its line number, the first ten in full: wrong encoding or delimiter,
            missing columns, rows too short or too long, an empty label, an unknown split, a file that is
            missing or listed twice with different answers, labels that differ in case or spaces only, a
            label in val or test that train lacks.
    """
    name = printable(str(table))
    notes: list[str] = []
    faults = _Faults(name)
    rows = list(_rows(_text(table, name), faults))
    rows = _without_repeats(rows, table.parent, faults, notes)
    _check_files(rows, faults)
    _check_spelling(rows, faults)
    _check_splits(rows, faults)
    faults.settle()
    if not rows:
        raise DataError(f"{name}: a header, but no rows: list the pictures, one a line")
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row.split or "all"][unicodedata.normalize("NFC", row.label.strip())].append(row.path)
    if "all" not in found and "train" not in found:
        raise DataError(f"{name}: no row has the split train, only {listed(sorted(found))}")
    if list(found) == ["train"]:
        notes.append(f"{name}: every row's split is train; val and test are carved out of it")
        found = {"all": found["train"]}
    notes.extend(_lookalikes(name, rows))
    order = [split for split in ("all", "train", "val", "test") if split in found]
    root = os.path.normpath(table.parent)
    return source_of_files(name, {split: found[split] for split in order}, notes, root)


def column_values(table: Path, column: str) -> dict[str, str]:
    """Of a file that :func:`read_table` takes: a picture's path -> what the row says in another ``column``.

    Raises:
        DataError: there is no such column, or a picture's rows say different things.
    """
    name = printable(str(table))
    rows = list(csv.reader(io.StringIO(_text(table, name), newline=""), strict=True))
    full = [row for row in rows if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in full[0]]
    if header.count(column.strip().lower()) != 1:
        raise DataError(f"{name}: there must be one column '{printable(column)}'; it has {listed(full[0])}")
    place, path = header.index(column.strip().lower()), header.index("path")
    values: dict[str, str] = {}
    for row in full[1:]:
        picture, value = os.path.normpath(table.parent / row[path]), row[place].strip()
        if values.setdefault(picture, value) != value:
            raise DataError(f"{name}: {printable(row[path])} has two values in column '{printable(column)}'")
    return values


def _text(table: Path, name: str) -> str:
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name}: UTF-16; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        raise DataError(f"{name}: not a text file. A source is a folder or a CSV file (path,label[,split]).")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise DataError(f"{name}:{line}: not UTF-8 (byte 0x{byte:02x}); save it as UTF-8") from None
    if not text.strip():
        raise DataError(f"{name}: an empty file; it needs a header (path,label) and a row for each picture")
    return text


def _rows(text: str, faults: _Faults) -> Iterator[_Row]:
    """The rows that are whole; the faults of the others are noted."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: dict[str, int] | None = None
    width = 0
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # What follows a broken quote cannot be told apart any more.
            faults.add(line, f"{error}; quotes inside of a quoted field are doubled")
            return
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns, width = _header(cells, line, faults), len(cells)
            continue
        if len(cells) != width:
            more = "; put quotes around a field with a comma in it" if len(cells) > width else ""
            number = "1 field" if len(cells) == 1 else f"{len(cells)} fields"
            faults.add(line, f"{number}, but the header has {width}{more}")
            continue
        row = _row(line, cells, columns, faults)
        if row is not None:
            yield row


def _header(cells: list[str], line: int, faults: _Faults) -> dict[str, int]:
    names = [cell.strip().lower() for cell in cells]
    for delimiter, plural in OTHER_DELIMITERS.items():
        split_up = [part.strip(' "').lower() for cell in cells for part in cell.split(delimiter)]
        if len(names) < len(split_up) and {"path", "label"} <= set(split_up):
            raise DataError(f"{faults.name}:{line}: the columns are separated by {plural}; use commas")
    if missing := [column for column in ("path", "label") if column not in names]:
        raise DataError(
            f"{faults.name}:{line}: the header lacks {' and '.join(missing)}. The first line must name the "
            f"columns, as in path,label,split; this one says {listed(cells)}."
        )
    wanted = [column for column in ("path", "label", "split") if column in names]
    if twice := [column for column in wanted if names.count(column) > 1]:
        raise DataError(f"{faults.name}:{line}: the header names {' and '.join(twice)} more than once")
    return {column: names.index(column) for column in wanted}


def _row(line: int, cells: list[str], columns: dict[str, int], faults: _Faults) -> _Row | None:
    path, label = cells[columns["path"]], cells[columns["label"]]
    split = cells[columns["split"]].strip() if "split" in columns else ""
    before = len(faults.found)
    if not path.strip():
        faults.add(line, "the path is empty")
    if not label.strip():
        faults.add(line, "the label is empty")
    elif not is_class_name(label.strip()):
        faults.add(line, f"the label '{printable(label)}' has control characters in it")
    if split and split.lower() not in SPLIT_NAMES:
        faults.add(line, f"unknown split '{printable(split)}'; train, val or test")
    if len(faults.found) > before:
        return None
    return _Row(line, path, label, SPLIT_NAMES[split.lower()] if split else "")


def _without_repeats(rows: list[_Row], folder: Path, faults: _Faults, notes: list[str]) -> list[_Row]:
    """Rows with their full paths. A picture listed twice is kept once, if both rows say the same."""
    kept: dict[str, _Row] = {}
    repeats = 0
    for row in rows:
        path = os.path.normpath(folder / row.path)
        first = kept.setdefault(path, _Row(row.line, path, row.label, row.split))
        if first.line == row.line:
            continue
        if first.label != row.label:
            faults.add(
                row.line,
                f"{printable(row.path)} is '{printable(row.label)}' here, but '{printable(first.label)}' in "
                f"line {first.line}",
            )
        elif first.split != row.split:
            faults.add(
                row.line,
                f"{printable(row.path)} is in {row.split or 'no split'} here, but in "
                f"{first.split or 'no split'} in line {first.line}; a picture belongs to one split",
            )
        else:
            repeats += 1
    if repeats:
        notes.append(f"{faults.name}: rows that repeat an earlier one were left out ({repeats})")
    return list(kept.values())


def _check_files(rows: list[_Row], faults: _Faults) -> None:
    for row in rows:
        try:
            mode = os.stat(row.path).st_mode  # noqa: PTH116  (a Path for each of a million rows is slow)
        except (OSError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError | ValueError) else error.strerror
            hint = "; write / instead of \\" if "\\" in row.path and os.sep == "/" else ""
            faults.add(row.line, f"{printable(row.path)}: {reason}{hint}")
            continue
        if not stat.S_ISREG(mode):
            faults.add(row.line, f"{printable(row.path)}: not a file")


def _check_spelling(rows: list[_Row], faults: _Faults) -> None:
    """Labels that look alike are one class misspelt, and never two."""
    first: dict[str, _Row] = {}
    reported: set[str] = set()
    for row in rows:
        folded = " ".join(unicodedata.normalize("NFKC", row.label).casefold().split())
        other = first.setdefault(folded, row)
        if other.label != row.label and row.label not in reported:
            reported.add(row.label)
            faults.add(
                row.line,
                f"the label '{printable(row.label)}' differs from '{printable(other.label)}' in line "
                f"{other.line} in case or spaces only; write both the same way",
            )


def _check_splits(rows: list[_Row], faults: _Faults) -> None:
    if not any(row.split for row in rows):
        return
    for row in rows:
        if not row.split:
            faults.add(row.line, "the split is empty; give every row one, or remove the column")


def _lookalikes(name: str, rows: list[_Row]) -> list[str]:
    """Remarks on rare labels that look like a misspelling of a frequent one."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.label] += 1
    rare = [label for label, count in counts.items() if count <= 2]
    frequent = [label for label, count in counts.items() if count >= RARE]
    notes = []
    for label in rare[:FAULTS_SHOWN]:
        if near := get_close_matches(label, frequent, n=1, cutoff=0.8):
            times = "once" if counts[label] == 1 else "twice"
            notes.append(f"{name}: the label '{label}' occurs {times}, '{near[0]}' {counts[near[0]]} times")
    return notes
