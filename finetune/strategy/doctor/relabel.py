"""A source with corrected labels: a CSV file of all images, made from a table that a person went over.

No image is moved, copied or changed. The split of each image is written down, so that a training on the new
source holds out the same images: the split of an image follows from its name within its source, and the new
file may lie elsewhere.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.data.dataset import Source, merge_splits, quoted
from finetune.data.sources.files.from_paths import source_from_paths
from finetune.data.sources.names.class_names import equivalent_names, is_class_name
from finetune.data.sources.read import csv_path, is_path
from finetune.data.sources.tables.read import other_columns
from finetune.disk.csv_table import CsvTable, as_read_back, guarded, unguarded
from finetune.disk.outputs import TextOutput, publish, staging
from finetune.errors import DataError, UserError, printable
from finetune.recipe.catalog import suggest
from finetune.recipe.schema import DataSection
from finetune.strategy.doctor.review_table import NEW, ReviewRow, read_review
from finetune.training.run.own_data import read_undivided
from finetune.training.setup.prepare import load_data, reading_of

# An error message lists at most this many faults and counts the others.
FAULTS_SHOWN = 50


@dataclass(frozen=True)
class Relabelled:
    """A source with corrected labels, not yet written.

    Attributes:
        source: as a reader of the new file finds it.
        changed: (old class, new class) -> number of images.
        confirmed: images whose label the table confirms.
        undecided: rows of the table without a decision.
        notes: remarks for the user.
        columns: further columns of the source's CSV file: their names, and the cells of each image file.
    """

    source: Source
    changed: Mapping[tuple[str, str], int]
    confirmed: int
    undecided: int
    notes: tuple[str, ...]
    columns: tuple[list[str], dict[str, list[str]]]

    def counts(self) -> dict[str, int]:
        """The number of images of each split."""
        return {name: len(split) for name, split in self.source.splits.items()}

    def rows(self, folder: Path, *, safe: bool) -> Iterator[list[str]]:
        """Yield the table, header first, for a file in ``folder``.

        Paths are relative where the image is below ``folder``, else absolute.

        Args:
            safe: write labels and further columns so that no spreadsheet runs them as a formula.
        """
        with_splits = "all" not in self.source.splits
        names, cells = self.columns

        def guard(text: str) -> str:
            # A text that reading would change is guarded in any case.
            return str(guarded(text)) if safe or unguarded(text) != text else text

        yield ["path", "label", *(["split"] if with_splits else []), *map(guard, names)]
        prefix = os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118
        for name, split in self.source.splits.items():
            for index in range(len(split)):
                image = split.name(index)
                label = guard(self.source.classes[int(split.targets[index])])
                own = map(guard, cells[image]) if names else ()
                yield [_path_cell(image, prefix), label, *([name] if with_splits else []), *own]

    def write(self, target: Path, *, safe: bool = True) -> None:
        """Write the source as a CSV file.

        Raises:
            DataError: a file name is not Unicode, which a CSV file cannot hold.
            UserError, SaveError: the file cannot be written.
        """
        unfit = [name for name in _names(self.source) if not _is_unicode(name)]
        if unfit:
            raise DataError(
                f"{printable(self.source.name)}: the names of {len(unfit):,} images are not UTF-8, and a CSV "
                f"file cannot hold them: {quoted(unfit[:5])}. Rename them"
            )
        with staging(target) as stage:
            with TextOutput(stage / "table", target) as text:
                # Paths must stay as they are, so that the files are found.
                table = CsvTable(text, safe=False)
                for row in self.rows(target.parent, safe=safe):
                    table.row(row)
            publish(stage / "table", target)


def relabel(
    data: DataSection, table: Path, *, accept: bool = False, new_classes: bool = False, seed: int = 0
) -> Relabelled:
    """Apply the decisions of a table to the labels of a source.

    A row decides by its column ``new_label``: the right class of the image. If it is the class that the image
    has, the label is confirmed. If it is empty, nothing is decided, unless ``accept`` is set.

    Args:
        data: names the source, and says how it is read and split.
        table: the doctor's table after a person went over it.
        accept: rows without a decision take the suggested class.
        new_classes: a new label may be a class that the source does not have.
        seed: of the recipe that splits the source.

    Raises:
        DataError: the source or the table cannot be read, or rows are wrong: an unknown image, a label that
            the image does not have, an unknown class, or two decisions about an image. The message lists
            them with their line numbers. Or no row decides anything.
    """
    if not is_path(data.source):
        raise UserError(
            f"{printable(data.source)}: the images of a known set are no files of yours, so their labels "
            "cannot be written to a table. Give a folder or a CSV file."
        )
    source = _divided(data, seed)
    rows, faults = read_review(table)
    decisions = _Decisions(source, accept=accept, new_classes=new_classes)
    for row in rows:
        decisions.take(row)
    faults = sorted([*faults, *decisions.faults])
    name = printable(str(table))
    if faults:
        lines = [f"{name}:{line}: {message}" for line, message in faults[:FAULTS_SHOWN]]
        if len(faults) > FAULTS_SHOWN:
            lines.append(f"... and {len(faults) - FAULTS_SHOWN:,} more")
        raise DataError("\n".join(lines))
    if not decisions.new:
        raise DataError(
            f"{name}: no row decides anything. Write the right class of an image in the column {NEW}. Or "
            "delete the rows whose label is right, and take the suggestions of the others with --accept"
        )
    return _apply(source, decisions, data)


def _divided(data: DataSection, seed: int) -> Source:
    """The source with the splits that a training has; undivided if it is too small to be trained on."""
    whole = data.model_copy(update={"fold": None})
    try:
        return load_data(whole, seed)
    except DataError:
        # A class of a single image may be a wrong label. Anything else is wrong without the splits too.
        return read_undivided(whole)


class _Decisions:
    """Collects what the rows of a table decide, and their faults.

    Attributes:
        new: image file -> its class by decision.
        old: image file -> its class in the source.
        faults: line number and message.
        undecided: rows without a decision.
    """

    def __init__(self, source: Source, *, accept: bool, new_classes: bool) -> None:
        self.new: dict[str, str] = {}
        self.faults: list[tuple[int, str]] = []
        self.undecided = 0
        whole = merge_splits(source)
        names = [whole.name(index) for index in range(len(whole))]
        classes = [source.classes[target] for target in whole.targets.tolist()]
        self.old = dict(zip(names, classes, strict=True))
        self._files: dict[str, list[str]] = defaultdict(list)
        for each in names:
            self._files[as_read_back(source.relative(each))].append(each)
        self._classes = {as_read_back(each): each for each in source.classes}
        self._source, self._accept, self._new_classes = source, accept, new_classes
        self._lines: dict[str, int] = {}

    def take(self, row: ReviewRow) -> None:
        """Take the decision of a row, or its faults."""
        faults: list[str] = []
        file = self._find(row.path, faults)
        if file is not None and _composed(row.label) != as_read_back(self.old[file]):
            faults.append(self._stale(row, file))
        new = self._class(row, faults)
        if not faults and file is not None and new is not None:
            earlier = self.new.setdefault(file, new)
            first = self._lines.setdefault(file, row.line)
            if earlier != new:
                faults.append(
                    f"{printable(row.path)}: '{printable(new)}' here, but '{printable(earlier)}' in line "
                    f"{first}"
                )
        self.faults += [(row.line, each) for each in faults]

    def _find(self, path: str, faults: list[str]) -> str | None:
        """The image file of a row."""
        if not path.strip():
            faults.append("the path is empty")
            return None
        found = self._files.get(_composed(path)) or self._files.get(_composed(path.strip())) or []
        if len(found) == 1:
            return found[0]
        if found:
            faults.append(f"{printable(path)}: {len(found)} images have names that a table shows like this")
            return None
        faults.append(
            f"{printable(path)}: not an image of {printable(self._source.name)}{self._similar(path.strip())}"
        )
        return None

    def _similar(self, path: str) -> str:
        """A hint at the one image that has the same file name."""
        own = os.path.basename(path.replace("\\", "/"))  # noqa: PTH119
        same = [each for each in self._files if os.path.basename(each) == own]  # noqa: PTH119
        return f". Did you mean '{printable(same[0])}'?" if len(same) == 1 else ""

    def _stale(self, row: ReviewRow, file: str) -> str:
        now = printable(self.old[file])
        return (
            f"{printable(row.path)}: its label is '{printable(row.label)}' here, but '{now}' in "
            f"{printable(self._source.name)}: the table was made for other labels, or the cell was changed"
        )

    def _class(self, row: ReviewRow, faults: list[str]) -> str | None:
        """The class that a row decides for; None if it decides nothing."""
        wanted = _composed(row.new or (row.suggested if self._accept else ""))
        if not wanted:
            self.undecided += 1
            return None
        if wanted in self._classes:
            return self._classes[wanted]
        known = [*self._classes]
        same = equivalent_names([*known, wanted])
        if self._new_classes and is_class_name(wanted) and not same:
            return wanted
        hint = f" Did you mean '{printable(same[0][1])}'?" if same else suggest(wanted, known)
        if not self._new_classes and not same:
            hint += " A class that is new needs --new-classes"
        faults.append(f"'{printable(wanted)}' is not among the classes ({quoted(known)}).{hint}")
        return None


def _apply(source: Source, decisions: _Decisions, data: DataSection) -> Relabelled:
    found: dict[str, dict[str, list[str]]] = {}
    for name, split in source.splits.items():
        of_class = found.setdefault(name, defaultdict(list))
        for index in range(len(split)):
            file = split.name(index)
            of_class[decisions.new.get(file, decisions.old[file])].append(file)
    assert source.root is not None
    corrected = source_from_paths(source.name, found, (), source.root)
    pairs = [(decisions.old[file], new) for file, new in decisions.new.items()]
    changed = Counter(pair for pair in pairs if pair[0] != pair[1])
    notes = list(corrected.notes)
    if gone := sorted({*source.classes} - {*corrected.classes}):
        notes.append(f"no image is left of {quoted(gone)}")
    table = csv_path(data.source, reading_of(data))
    columns = ([], {}) if table is None else other_columns(table)
    confirmed = len(pairs) - sum(changed.values())
    return Relabelled(corrected, changed, confirmed, decisions.undecided, tuple(notes), columns)


def _names(source: Source) -> Iterator[str]:
    for split in source.splits.values():
        yield from (split.name(index) for index in range(len(split)))


def _path_cell(image: str, prefix: str) -> str:
    path = os.path.abspath(image).removeprefix(prefix).replace(os.sep, "/")  # noqa: PTH100
    # A spreadsheet would run =x.jpg as a formula. ./=x.jpg is the same file.
    return path if guarded(path) == path or os.path.isabs(path) else f"./{path}"  # noqa: PTH117


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
