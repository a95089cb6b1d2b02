"""Folders of pictures: one folder a class, with or without train, val and test folders around them."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from finetune.data.sources.dataset import SPLIT_NAMES, Source, is_class_name, listed, source_of_files
from finetune.data.sources.files import identity, is_directory, is_image_name, scan, walk
from finetune.data.sources.listings import Visits, recall, remember
from finetune.errors import DataError, printable


@dataclass
class _Folder:
    """One folder below the root: the pictures directly in it, and those in (or below) each of its folders."""

    name: str
    direct: list[str] = field(default_factory=list)
    below: dict[str, list[str]] = field(default_factory=dict)

    @property
    def split(self) -> str | None:
        return SPLIT_NAMES.get(self.name.lower())

    @property
    def holds_classes(self) -> bool:
        return any(self.below.values())

    @property
    def pictures(self) -> list[str]:
        return [*self.direct, *(path for paths in self.below.values() for path in paths)]


def read_folder(root: Path) -> Source:
    """Read a folder: ``train/``, ``val/`` (or ``valid/``, ``validation/``) and ``test/`` with a folder a
    class in each, or a folder a class right away.

    A folder with one of those names counts as a split only if there are folders with pictures in it.
    Pictures may lie at any depth below their class's folder. Hidden folders and what tools leave behind are
    no classes.

    Raises:
        DataError: no pictures or no classes, an empty class, two folders for one split, no train, a mixture
            of split folders and class folders, a class in val or test that train lacks.
    """
    name = printable(str(root))
    folders, loose, others = _remembered(root)
    if not any(folder.pictures for folder in folders):
        raise DataError(_nothing(name, folders, loose, others))
    notes = []
    if loose:
        notes.append(f"{name}: pictures outside of the class folders were left out ({loose})")
    if others:
        kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common(5))
        notes.append(f"{name}: files that are no pictures were passed over ({kinds})")
    if any(folder.split and folder.holds_classes for folder in folders):
        found = _splits(name, folders, notes)
    else:
        found = {"all": _classes(name, folders, notes)}
    return source_of_files(name, found, notes, os.fspath(root))


def _remembered(root: Path) -> tuple[list[_Folder], int, Counter[str]]:
    """What :func:`_look` finds, from an earlier run where nothing has changed since."""
    found = recall(root)
    if found is not None:
        facts, paths = found
        rest = iter(paths)
        folders = [
            _Folder(name, list(islice(rest, direct)), {each: list(islice(rest, n)) for each, n in below})
            for name, direct, below in facts["folders"]
        ]
        return folders, facts["loose"], Counter(facts["others"])
    visits = Visits(root)
    folders, loose, others = _look(root, visits)
    counts = [
        (each.name, len(each.direct), [(name, len(paths)) for name, paths in each.below.items()])
        for each in folders
    ]
    facts = {"folders": counts, "loose": loose, "others": others}
    remember(root, visits, facts, [path for each in folders for path in each.pictures])
    return folders, loose, others


def _look(root: Path, visits: Visits) -> tuple[list[_Folder], int, Counter[str]]:
    """Every file once: the folders, the number of pictures directly in the root, the kinds of other files."""
    folders, loose, others = [], 0, Counter[str]()

    def pictures(paths: list[str]) -> list[str]:
        kept = [path for path in paths if is_image_name(path)]
        passed_over = [path for path in paths if not is_image_name(path)]
        others.update(Path(path).suffix.lower() or "no extension" for path in passed_over)
        return kept

    for entry in scan(root, visits):
        if not is_directory(entry):
            # A README or a licence beside the folders is nothing to remark on.
            loose += is_image_name(entry.name)
            continue
        if identity(entry.path) == identity(root):
            continue
        folder = _Folder(entry.name)
        for inner in scan(entry.path, visits):
            if is_directory(inner):
                folder.below[inner.name] = pictures(list(walk(inner.path, (root, entry.path), visits)))
            else:
                folder.direct.extend(pictures([inner.path]))
        folders.append(folder)
    return folders, loose, others


def _splits(name: str, folders: list[_Folder], notes: list[str]) -> dict[str, dict[str, list[str]]]:
    """The reading as splits; at least one of ``folders`` is a split."""
    found: dict[str, dict[str, list[str]]] = {}
    taken: dict[str, str] = {}
    if others := [folder.name for folder in folders if folder.split is None and folder.pictures]:
        named = [folder.name for folder in folders if folder.split]
        raise DataError(
            f"{name}: this can be read in two ways. {listed(named)} look like splits with classes in them, "
            f"but {listed(others)} beside them hold pictures too. For a data set with splits move "
            f"{listed(others)} elsewhere; for one folder of classes rename {listed(named)}."
        )
    for folder in folders:
        if folder.split is None:
            continue
        if not folder.holds_classes:
            what = "pictures, but no class folders: they have no labels" if folder.direct else "no pictures"
            notes.append(f"{name}: {printable(folder.name)}/ holds {what}; it was left out")
            continue
        if folder.split in taken:
            both = listed([taken[folder.split], folder.name])
            raise DataError(f"{name}: {both} both mean {folder.split}. Keep one of them.")
        taken[folder.split] = folder.name
        if folder.direct:
            notes.append(
                f"{name}/{printable(folder.name)}: pictures outside of the class folders were left out "
                f"({len(folder.direct)})"
            )
        where = f"{name}/{printable(folder.name)}"
        found[folder.split] = _named(where, {each: folder.below[each] for each in folder.below})
    if "train" not in found:
        raise DataError(
            f"{name}: no train/ with class folders in it, only {listed(list(taken.values()))}. To use one of "
            f"them as a data set of its own, give that folder: {name}/{printable(next(iter(taken.values())))}"
        )
    if list(found) == ["train"]:
        notes.append(f"{name}: only train/ holds classes; val and test are carved out of it")
        return {"all": found["train"]}
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _classes(name: str, folders: list[_Folder], notes: list[str]) -> dict[str, list[str]]:
    """The reading as one folder of classes."""
    named = [folder.name for folder in folders if folder.split and folder.pictures]
    if named and not any(folder.pictures for folder in folders if not folder.split):
        raise DataError(
            f"{name}: {listed(named)} hold pictures, but no class folders. "
            "Put each class's pictures into a folder of its own, as in train/cat/1.jpg and train/dog/1.jpg, "
            "or list the pictures in a CSV file with the columns path and label."
        )
    if named:
        notes.append(f"{name}: {listed(named)} hold pictures and no class folders, and were read as classes")
    if nested := [folder.name for folder in folders if _holds_splits(folder)]:
        raise DataError(
            f"{name}: {listed(nested)} hold folders called train, val or test themselves. If they are data "
            f"sets of their own, give one, such as {name}/{printable(nested[0])}. If they are classes, the "
            f"split comes first, as in train/{printable(nested[0])}/1.jpg."
        )
    if len(folders) == 1 and not folders[0].direct and sum(map(bool, folders[0].below.values())) > 1:
        inner = f"{name}/{printable(folders[0].name)}"
        raise DataError(f"{name}: holds one folder only, with the classes inside of that. Give {inner}")
    return _named(name, {folder.name: folder.pictures for folder in folders})


def _holds_splits(folder: _Folder) -> bool:
    return any(pictures and name.lower() in SPLIT_NAMES for name, pictures in folder.below.items())


def _named(where: str, of_folder: dict[str, list[str]]) -> dict[str, list[str]]:
    """Class name -> pictures. Names are brought to Unicode's composed form: macOS writes the other one."""
    if empty := sorted(each for each, pictures in of_folder.items() if not pictures):
        raise DataError(
            f"{where}: no pictures in {listed(empty)}. Add pictures, or remove the folder if it is no class."
        )
    found: dict[str, list[str]] = {}
    for folder, pictures in of_folder.items():
        class_name = unicodedata.normalize("NFC", folder)
        if not is_class_name(class_name):
            raise DataError(
                f"{where}: the folder name '{printable(folder)}' has control characters in it, or is not "
                "UTF-8. Rename it: it is a class's name."
            )
        if class_name in found:
            raise DataError(f"{where}: two folders are called '{class_name}', in two Unicode spellings.")
        found[class_name] = pictures
    return found


def _nothing(name: str, folders: list[_Folder], loose: int, others: Counter[str]) -> str:
    """Why a folder without a single picture in a folder of its own cannot serve."""
    if loose:
        return (
            f"{name}: {loose} pictures, but no class folders. Put each class's pictures into a folder of its "
            "own, or list the pictures in a CSV file with the columns path and label."
        )
    if folders:
        return f"{name}: no pictures in {listed([folder.name for folder in folders])}{_beside(others)}."
    return f"{name}: no pictures and no class folders{_beside(others)}."


def _beside(others: Counter[str]) -> str:
    if not others:
        return ""
    kinds = ", ".join(kind for kind, _ in others.most_common(5))
    return f" (only {others.total()} other files: {kinds})"
