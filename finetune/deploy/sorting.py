"""Sort predicted images into one folder per class, and record in a table where each went. Torch-free."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.decision.probabilities import in_digits
from finetune.deploy.class_folders import folder_names
from finetune.deploy.place_image import PLACED, By, is_placed, place_image
from finetune.deploy.predict import Prediction
from finetune.deploy.sorted_table import TABLE, read_placed, write_rows
from finetune.disk.csv_table import as_read_back
from finetune.disk.outputs import staging
from finetune.errors import SaveError, UserError, printable


@dataclass
class SortCounts:
    """The numbers of sorted images.

    Attributes:
        placed: images that were copied, linked or moved.
        already_there: images that were in their folder already.
        unreadable: images that could not be read and stay where they are.
        skipped: images that lie in a class folder of the target.
        in_other_class: images that an earlier run placed in another class's folder, where they stay too.
        classes: the classes that were predicted.
    """

    placed: int = 0
    already_there: int = 0
    unreadable: int = 0
    skipped: int = 0
    in_other_class: int = 0
    classes: set[str] = field(default_factory=set)


class Sorter:
    """Sorts images as they are predicted; a :class:`finetune.deploy.prediction_text.Writer`."""

    def __init__(self, target: Path, classes: Sequence[str], by: By, stage: Path) -> None:
        """Call :func:`sorting` instead, which also writes the table."""
        self.counts = SortCounts()
        self.rows: dict[str, list[str]] = {}
        self._target, self._by, self._stage = target, by, stage
        self._folders = folder_names(classes, reserved=[TABLE])
        self._placed_before = read_placed(target / TABLE)
        self._names_tried: Counter[tuple[str, str]] = Counter()
        self._class_folders = {os.path.realpath(target / name) for name in self._folders.values()}
        self._seen: set[str] = set()

    def write(self, batch: Sequence[Prediction]) -> None:
        """Sort the images of a batch.

        Raises:
            SaveError: an image cannot be copied, linked or moved. Images placed before it stay.
        """
        for prediction in batch:
            placed, best = "", ["", ""]
            if prediction.error is None:
                name = prediction.label
                best = [name, in_digits(prediction.probability)]
                placed = self._sort(prediction.name, self._folders[name])
                self.counts.classes.add(name)
            else:
                self.counts.unreadable += 1
            path = as_read_back(_absolute(prediction.name))
            self.rows[path] = [path, *best, as_read_back(placed), prediction.error or ""]

    def unsorted(self, paths: Iterator[str]) -> Iterator[str]:
        """Yield each of ``paths`` once, without those in a class folder of the target."""
        for path in paths:
            name = _absolute(path)
            if name in self._seen:
                continue
            self._seen.add(name)
            if any(name.startswith(each + os.sep) for each in self._class_folders):
                self.counts.skipped += 1
            else:
                yield path

    def _sort(self, path: str, folder: str) -> str:
        """Place an image in a class folder, and return its place below the target."""
        try:
            (self._target / folder).mkdir(exist_ok=True)
            before = self._placed_before.get(as_read_back(_absolute(path)), "")
            if before and is_placed(Path(path), self._target / before, self._by):
                if Path(before).parent.name == folder:
                    return self._already_there(Path(path), before)
                self.counts.in_other_class += 1
            return self._place(Path(path), folder)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            hint = " Try --by copy." if self._by != "copy" else ""
            raise SaveError(
                f"{printable(path)}: cannot be {PLACED[self._by]} into "
                f"{printable(str(self._target / folder))} ({reason}). Images sorted before it stay.{hint}"
            ) from None

    def _place(self, source: Path, folder: str) -> str:
        key = (folder, source.name)
        while True:
            self._names_tried[key] += 1
            placed = f"{folder}/{_numbered(source.name, self._names_tried[key])}"
            target = self._target / placed
            # Two files with equal bytes are both moved. One file with two names is an interrupted move.
            if is_placed(source, target, self._by) and (self._by != "move" or target.samefile(source)):
                return self._already_there(source, placed)
            if place_image(source, target, self._by, self._stage):
                self.counts.placed += 1
                return placed

    def _already_there(self, source: Path, placed: str) -> str:
        if self._by == "move":
            source.unlink()
        self.counts.already_there += 1
        return placed


@contextlib.contextmanager
def sorting(target: Path, classes: Sequence[str], by: By) -> Iterator[Sorter]:
    """Open a :class:`Sorter` into ``target``; write the table on exit, also after an error.

    Raises:
        UserError: ``target`` is a file or cannot be written, or has an unrelated ``sorted.csv``.
        SaveError: the table cannot be written.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"{printable(str(target))}: not a folder. Give a folder to sort into; it may be new.")
    read_placed(target / TABLE)
    with staging(target / TABLE) as stage:
        sorter = Sorter(target, classes, by, stage)
        try:
            yield sorter
        finally:
            if sorter.rows:
                write_rows(stage, target / TABLE, sorter.rows)


def _absolute(path: str) -> str:
    """One form for all spellings of a path. Links in its folder are resolved; a link to the image is not."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)  # noqa: PTH118  (a Path raises on odd names)


def _numbered(name: str, number: int) -> str:
    """``a.jpg``, ``a-2.jpg``, ``a-3.jpg`` and so on."""
    stem, _, suffix = name.rpartition(".")
    numbered = f"{stem}-{number}.{suffix}" if stem else f"{name}-{number}"
    return name if number == 1 else numbered
