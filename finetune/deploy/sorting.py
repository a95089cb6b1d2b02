"""Predicted images into a folder a class, with a table of what went where. Torch-free.

Nothing is ever overwritten, and nothing is there half: a copy is made aside, and gets its name when whole.
"""

import contextlib
import csv
import filecmp
import io
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.deploy.predict import Prediction
from finetune.disk.atomic import sync
from finetune.disk.csv_table import guarded, unguarded
from finetune.disk.outputs import staging, write_table
from finetune.disk.regular import TABLE_BYTES, read_regular_text
from finetune.errors import SaveError, UserError, printable
from finetune.evaluation.probabilities import in_digits

TABLE = "sorted.csv"
HEADER = ["path", "class", "probability", "placed", "error"]
# Longest name of a class's folder, in bytes: file systems end at 255, and a copy's number needs some.
LONGEST = 200
# No file or folder on Windows can be called so.
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10))}
)
UNFIT = frozenset('/\\:*?"<>|')


# How an image comes into its class's folder.
By = Literal["copy", "link", "move"]
DONE: dict[By, str] = {"copy": "copied", "link": "linked", "move": "moved"}


@dataclass
class Counts:
    """What became of images.

    Attributes:
        placed: anew.
        there: already.
        left: where they are, since they cannot be read.
        sorted: before, since they lie in a class's folder of the target.
        elsewhere: in another class's folder too, where an earlier sorting put them.
        classes: that any of them is of.
    """

    placed: int = 0
    there: int = 0
    left: int = 0
    sorted: int = 0
    elsewhere: int = 0
    classes: set[str] = field(default_factory=set)


class Sorter:
    """Places images as predictions come; a :class:`finetune.deploy.prediction_text.Writer`."""

    def __init__(self, target: Path, classes: Sequence[str], by: By, stage: Path) -> None:
        """Use :func:`sorting`, which also writes the table."""
        self.counts = Counts()
        self.rows: dict[str, list[str]] = {}
        self._target, self._by, self._stage = target, by, stage
        self._folders = folder_names(classes)
        self._before = read_table(target / TABLE)
        self._next: Counter[tuple[str, str]] = Counter()
        self._sorted = {os.path.realpath(target / name) for name in self._folders.values()}
        self._seen: set[str] = set()

    def write(self, batch: Sequence[Prediction]) -> None:
        """Place the images of a batch.

        Raises:
            SaveError: one cannot be copied, linked or moved; those before it stay where they were put.
        """
        for prediction in batch:
            placed, best = "", ["", ""]
            if prediction.error is None:
                name, probability = prediction.classes[0], prediction.probabilities[0]
                best = [name, in_digits(probability)]
                placed = self._place(prediction.name, self._folders[name])
                self.counts.classes.add(name)
            else:
                self.counts.left += 1
            path = _in_table(_absolute(prediction.name))
            self.rows[path] = [path, *best, _in_table(placed), prediction.error or ""]

    def unsorted(self, paths: Iterator[str]) -> Iterator[str]:
        """Each of ``paths`` once, and none that lies in a class's folder of the target: those are sorted."""
        for path in paths:
            name = _absolute(path)
            if name in self._seen:
                continue
            self._seen.add(name)
            if any(name.startswith(each + os.sep) for each in self._sorted):
                self.counts.sorted += 1
            else:
                yield path

    def _place(self, path: str, folder: str) -> str:
        """Where the image now is, below the target."""
        source = Path(path)
        try:
            (self._target / folder).mkdir(exist_ok=True)
            before = self._before.get(_in_table(_absolute(path)), "")
            if before and self._is_there(source, self._target / before):
                if Path(before).parent.name == folder:
                    return self._settled(source, before)
                self.counts.elsewhere += 1
            key = (folder, source.name)
            for name in _free_names(source.name, self._next[key]):
                self._next[key] += 1
                target = self._target / folder / name
                # Of two files with the same bytes a move keeps both; one file with two names is half moved.
                if self._is_there(source, target) and (self._by != "move" or target.samefile(source)):
                    return self._settled(source, f"{folder}/{name}")
                if self._put(source, target):
                    return f"{folder}/{name}"
        except OSError as error:
            reason = error.strerror or type(error).__name__
            hint = " Try --by copy." if self._by != "copy" else ""
            raise SaveError(
                f"{printable(path)}: cannot be {DONE[self._by]} into {printable(str(self._target / folder))} "
                f"({reason}). What was sorted before it stays.{hint}"
            ) from None
        raise AssertionError("names are endless")

    def _settled(self, source: Path, placed: str) -> str:
        """The image is at ``placed`` already; a move then ends with the source."""
        if self._by == "move":
            source.unlink()
        self.counts.there += 1
        return placed

    def _is_there(self, source: Path, target: Path) -> bool:
        if self._by != "copy" and target.is_symlink() != (self._by == "link"):
            return False  # moving an image onto a link to it would lose it
        return target.is_file() and filecmp.cmp(source, target, shallow=False)

    def _put(self, source: Path, target: Path) -> bool:
        """Place the image; False if ``target`` is taken."""
        if os.path.lexists(target):
            return False
        try:
            if self._by == "link":
                target.symlink_to(source.resolve())
            elif self._by == "copy" or source.is_symlink() or not _linked(source, target):
                self._copy(source, target)
        except FileExistsError:
            return False
        if self._by == "move":
            try:
                source.unlink()
            except OSError:
                target.unlink()
                raise
        self.counts.placed += 1
        return True

    def _copy(self, source: Path, target: Path) -> None:
        aside = self._stage / "image"
        try:
            shutil.copyfile(source, aside)
            with contextlib.suppress(OSError):
                shutil.copystat(source, aside)
            if self._by == "move":
                sync(aside)  # the source goes next
            if not _linked(aside, target):
                # No hard links here: the name is taken first, so that nobody else's file is replaced.
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                try:
                    aside.replace(target)
                except OSError:
                    target.unlink()
                    raise
        finally:
            aside.unlink(missing_ok=True)


@contextlib.contextmanager
def sorting(target: Path, classes: Sequence[str], by: By) -> Iterator[Sorter]:
    """Sort into ``target``, and leave the table there, also where the sorting ends early.

    Raises:
        UserError: ``target`` is a file or cannot be written, or a ``sorted.csv`` in it is not this command's.
        SaveError: the table cannot be written.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"{printable(str(target))}: not a folder. Give one to sort into; it may be new.")
    read_table(target / TABLE)
    with staging(target / TABLE) as stage:
        sorter = Sorter(target, classes, by, stage)
        try:
            yield sorter
        finally:
            if sorter.rows:
                _write_table(stage, target / TABLE, sorter.rows)


def read_table(path: Path) -> dict[str, str]:
    """Path -> where it was placed below the folder, of an earlier sorting; empty if there was none.

    Raises:
        UserError: a file of that name that is no such table.
    """
    return {row[0]: row[3] for row in _rows(path)}


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Class -> a name for its folder that every file system takes; no two of them are the same on any."""
    names: dict[str, str] = {}
    taken = {TABLE}
    for name in classes:
        plain = _fit(name)
        candidates = (plain if number == 1 else f"{plain}-{number}" for number in range(1, len(classes) + 3))
        names[name] = next(each for each in candidates if _folded(each) not in taken)
        taken.add(_folded(names[name]))
    return names


def _fit(name: str) -> str:
    text = "".join("_" if char in UNFIT or not char.isprintable() else char for char in name)
    while len(os.fsencode(text)) > LONGEST:
        text = text[:-1]
    # Hidden, or lost, or cut off: a dot in front, and dots and spaces at the end.
    text = text.strip(" ").rstrip(". ")
    text = f"_{text[1:]}" if text.startswith(".") else text
    return f"_{text}" if not text or text.split(".")[0].strip().lower() in DEVICES else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _absolute(path: str) -> str:
    """The same for all spellings of a path; a link to an image stays one, links to its folder do not."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)  # noqa: PTH118  (a Path raises on odd names)


def _in_table(name: str) -> str:
    """A name as the table gives it back: what steers a terminal, or is no Unicode, is an escape."""
    return unguarded(str(guarded(name)))


def _free_names(name: str, start: int) -> Iterator[str]:
    """``a.jpg``, ``a-2.jpg``, ``a-3.jpg`` and so on, without the first ``start``."""
    stem, dot, suffix = name.rpartition(".")
    stem, suffix = (stem, dot + suffix) if stem else (name, "")
    number = start
    while True:
        number += 1
        yield name if number == 1 else f"{stem}-{number}{suffix}"


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name, which must be free; False where the file system has no such thing.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _rows(path: Path) -> list[list[str]]:
    try:
        text = read_regular_text(path, TABLE_BYTES)
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{printable(str(path))}: cannot be read ({error}).") from None
    if not rows or rows[0] != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise UserError(
            f"{printable(str(path))}: not a table of an earlier sorting. Move it away, or choose another "
            "folder."
        )
    return [[unguarded(cell) for cell in row] for row in rows[1:]]


def _write_table(stage: Path, target: Path, rows: dict[str, list[str]]) -> None:
    """Rows of earlier sortings stay; an image has one, the latest."""
    merged = {row[0]: row for row in _rows(target)} | rows
    write_table([HEADER, *merged.values()], stage, target, safe=True)
