"""A CSV table of images: its valid rows, its faults, and the source that it makes."""

import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from finetune.data.dataset import Source, quoted
from finetune.data.sources.files.from_paths import source_from_paths
from finetune.errors import DataError

# An error message lists at most this many faults and counts the others.
FAULTS_SHOWN = 10


@dataclass(frozen=True)
class Row:
    """A valid row: its line number, the path as written, the label and the split ("" for none).

    ``file`` is the path of the image file, once it has been found.
    """

    line: int
    path: str
    label: str
    split: str
    file: str = ""


@dataclass(frozen=True)
class Fault:
    """A fault in one line of a table.

    Attributes:
        message: the description, equal for all faults that can be reported together.
        kind: the kind of the doctor's finding.
        subject: the path that the fault is about, if the message does not name it.
        file: the image of the row, if it names one.
        is_covered: whether another fault already covers this one and many like it.
    """

    line: int
    message: str
    kind: str = "faulty-row"
    subject: str = ""
    file: str = ""
    is_covered: bool = False


@dataclass
class Table:
    """A table: its valid ``rows`` and the ``faults`` of the others."""

    name: str
    folder: Path
    rows: list[Row] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def splits(self) -> dict[str, dict[str, list[str]]]:
        """Split -> label -> files of the valid rows. A table without splits has the one split ``all``."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            class_name = unicodedata.normalize("NFC", row.label.strip())
            found[row.split or "all"][class_name].append(row.file)
        return {split: found[split] for split in ("all", "train", "val", "test") if split in found}

    def source(self) -> Source:
        """The data set of all rows.

        Raises:
            DataError: the table has faults (the message lists the first ten), no rows, or no training images.
        """
        if self.faults:
            raise DataError(self._fault_message())
        if not self.rows:
            raise DataError(f"{self.name}: no rows after the header. Add one line per image.")
        found = self.splits()
        if "all" not in found and "train" not in found:
            raise DataError(f"{self.name}: no row has the split train, only {quoted(sorted(found))}")
        notes = list(self.notes)
        if list(found) == ["train"]:
            notes.append(f"{self.name}: all rows are in train; val and test are split off from it")
            found = {"all": found["train"]}
        return source_from_paths(self.name, found, notes, os.path.normpath(self.folder))

    def _fault_message(self) -> str:
        faults = sorted((fault for fault in self.faults if not fault.is_covered), key=lambda each: each.line)
        lines = [
            f"{self.name}:{each.line}: {f'{each.subject}: ' if each.subject else ''}{each.message}"
            for each in faults[:FAULTS_SHOWN]
        ]
        if len(faults) > FAULTS_SHOWN:
            more = len(faults) - FAULTS_SHOWN
            lines.append(f"... and {more} more faults (`finetune doctor` lists them all)")
        return "\n".join(lines)
