"""Folders of images: one folder a class, with or without train, val and test folders around them."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from finetune.data.dataset import Source, quoted
from finetune.data.sources.files.from_paths import source_from_paths
from finetune.data.sources.files.image_files import loose_images_note, skipped_files_note
from finetune.data.sources.folders.layout import (
    AS_CLASSES_HINT,
    AmbiguousLayoutError,
    class_folders,
    find_split_folders,
    has_two_splits,
    named_like_splits,
    parts_of_classes,
    splits_below,
    splits_inside,
)
from finetune.data.sources.folders.tree import Folder, read_tree
from finetune.data.sources.names.class_names import equivalent_names, is_class_name
from finetune.data.sources.names.split_names import USUAL_NAMES, parse_split_name
from finetune.errors import DataError, printable

Classes = dict[str, list[str]]


def read_folder(root: Path, *, as_classes: bool = False) -> Source:
    """Read a folder: a folder a class, in it right away or in folders of train, val and test.

    Folders are splits if their names say so by a whole word (`train`, `Test_Set`, `seg_train` beside
    `seg_test`) and there are folders with images in them; in one folder that is around them all, too.
    Images may lie at any depth below their class's folder. Hidden folders and what tools leave behind are
    no classes.

    Args:
        as_classes: each folder in ``root`` is a class, whatever its name and whatever is in it.

    Raises:
        DataError: no images or no classes, an empty class, two folders for one split, no train, a mixture
            of split folders and class folders, classes that look like splits or sites, names of classes that
            differ in case, spaces or Unicode form only, a class in val or test that train lacks.
    """
    name = printable(str(root))
    top, others = read_tree(root)
    if not top.holding:
        raise DataError(_nothing(name, top, others))
    notes = []
    if top.direct:
        notes.append(loose_images_note(name, len(top.direct)))
    if others:
        notes.append(skipped_files_note(name, others))
    if as_classes:
        found = {"all": _named(name, top.folders)}
    else:
        found = _as_splits(name, top, notes) or {"all": _as_classes(name, top, notes)}
    _check_names(name, found)
    return source_from_paths(name, found, notes, os.fspath(root))


def _as_splits(name: str, top: Folder, notes: list[str]) -> dict[str, Classes] | None:
    """The reading as splits, of ``top`` or of the one folder with images in it; None where it has none."""
    where, around = name, top
    while True:
        try:
            splits = find_split_folders(around)
        except AmbiguousLayoutError as doubt:
            raise DataError(f"{where}: {doubt}") from None
        if splits:
            break
        # A folder around the splits: images/train/cat/1.jpg, images/test/cat/2.jpg.
        if len(around.holding) != 1 or around.holding[0].direct:
            return None
        around = around.holding[0]
        where = f"{where}/{printable(around.name)}"
    if around is not top:
        notes.append(f"{name}: read from {where}, the only folder with images in it")
    if beside := [each.name for each in around.holding if each not in splits]:
        notes.append(f"{where}: images without labels in {quoted(beside)} were left out")
    found, taken = _classes_of_splits(where, splits, notes)
    if "train" not in found:
        first = printable(next(iter(taken.values())))
        raise DataError(
            f"{where}: no train/ with class folders in it, only {quoted(list(taken.values()))}. To use one "
            f"of them as a data set of its own, give that folder: {where}/{first}"
        )
    if any(each.lower() not in USUAL_NAMES for each in taken.values()):
        read = ", ".join(f"{printable(each)}/ as {split}" for split, each in taken.items())
        notes.append(f"{where}: the folders are splits by their names: {read}")
    if list(found) == ["train"]:
        only = printable(taken["train"])
        notes.append(f"{where}: only {only}/ holds classes; val and test are carved out of it")
        return {"all": found["train"]}
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _classes_of_splits(
    where: str, splits: dict[Folder, str], notes: list[str]
) -> tuple[dict[str, Classes], dict[str, str]]:
    """Split -> its classes, and split -> its folder's name; folders without classes are left out.

    Raises:
        DataError: two folders are one split, or what is in one makes no classes.
    """
    found: dict[str, Classes] = {}
    taken: dict[str, str] = {}
    known: Sequence[str] = ()
    for folder, split in sorted(splits.items(), key=lambda each: each[1] != "train"):
        inside = f"{where}/{printable(folder.name)}"
        inner = class_folders(folder, known)
        if inner is None:
            notes.append(
                f"{where}: {printable(folder.name)}/ holds images, but no class folders: they have no "
                "labels; it was left out"
            )
            continue
        if split in taken:
            both = quoted(sorted([taken[split], folder.name]))
            raise DataError(f"{where}: {both} both mean {split}. Keep one of them.")
        taken[split] = folder.name
        if inner is not folder:
            notes.append(f"{inside}: the classes are the folders in {printable(inner.name)}/")
            inside = f"{inside}/{printable(inner.name)}"
        if inner.direct:
            notes.append(loose_images_note(inside, len(inner.direct)))
        if has_two_splits(inner.holding) or any(map(splits_inside, inner.holding)):
            raise DataError(
                f"{inside}: is called {split}, and holds folders called train, val or test itself. If it is "
                f"a data set of its own, give {inside}. If these are the classes, give "
                f"{inside} and {AS_CLASSES_HINT}."
            )
        _check_parts(inside, inner, notes)
        _note_split_names(inside, inner, notes)
        found[split] = _named(inside, inner.folders)
        known = known or tuple(found[split])
    return found, taken


def _as_classes(name: str, top: Folder, notes: list[str]) -> Classes:
    """The reading as one folder of classes."""
    holding = top.holding
    named = named_like_splits(holding)
    if named and (
        len(named) == len(holding) or has_two_splits([each for each in holding if each.name in named])
    ):
        raise DataError(
            f"{name}: {quoted(named)} hold images, but no class folders. "
            "Put each class's images into a folder of its own, as in train/cat/1.jpg and train/dog/1.jpg, "
            "or list the images in a CSV file with the columns path and label. "
            f"If these are the classes, {AS_CLASSES_HINT}."
        )
    if nested := [folder.name for folder in holding if splits_inside(folder)]:
        first = printable(nested[0])
        raise DataError(
            f"{name}: {quoted(nested)} hold folders called train, val or test themselves. If they are data "
            f"sets of their own, give one, such as {name}/{first}. If they are classes, the "
            f"split comes first, as in train/{first}/1.jpg. If they are classes, and what is in them is no "
            f"split, {AS_CLASSES_HINT}."
        )
    if by_class := splits_below(holding):
        folder, split, class_name = by_class
        raise DataError(
            f"{name}: the names of {quoted([each.name for each in holding])} tell a class and a split. Put "
            f"the split first: {printable(folder)}/ becomes {split}/{printable(class_name)}/. If each is a "
            f"class, {AS_CLASSES_HINT}."
        )
    if len(holding) == 1 and len(top.folders) == 1 and not holding[0].direct and len(holding[0].holding) > 1:
        inner = f"{name}/{printable(holding[0].name)}"
        raise DataError(f"{name}: holds one folder only, with the classes inside of that. Give {inner}")
    _check_parts(name, top, notes)
    _note_split_names(name, top, notes)
    return _named(name, top.folders)


def _note_split_names(where: str, folder: Folder, notes: list[str]) -> None:
    if names := [each.name for each in folder.holding if parse_split_name(each.name)]:
        notes.append(f"{where}: {quoted(names)}: a split's name, but no splits are there; read as classes")


def _check_parts(where: str, folder: Folder, notes: list[str]) -> None:
    """What is the same in all the classes of ``folder``: parts of them, or the classes themselves?

    Raises:
        DataError: that cannot be told.
    """
    try:
        same = parts_of_classes(folder.holding)
    except AmbiguousLayoutError as doubt:
        raise DataError(f"{where}: {doubt}") from None
    if same:
        notes.append(
            f"{where}: the classes hold the same folders, {quoted(same)}, which were read as parts of them"
        )


def _named(where: str, folders: Sequence[Folder]) -> Classes:
    """Class name -> images. Names are brought to Unicode's composed form: macOS writes the other one."""
    if empty := [each.name for each in folders if not each.has_images]:
        raise DataError(
            f"{where}: no images in {quoted(empty)}. Add images, or remove the folder if it is no class."
        )
    found: Classes = {}
    for folder in folders:
        class_name = unicodedata.normalize("NFC", folder.name)
        if not is_class_name(class_name):
            raise DataError(
                f"{where}: the folder name '{printable(folder.name)}' has control characters in it, or is "
                "not UTF-8. Rename it: it is a class's name."
            )
        if class_name in found:
            raise DataError(f"{where}: two folders are called '{class_name}', in two Unicode spellings.")
        found[class_name] = folder.images
    return found


def _check_names(name: str, found: dict[str, Classes]) -> None:
    """Class names that differ in case, spaces or Unicode form only are one class, in all splits together."""
    places: dict[str, str] = {}
    for split, classes in found.items():
        for each in classes:
            places.setdefault(each, each if split == "all" else f"{split}/{each}")
    if pairs := equivalent_names(places):
        both = "; ".join(f"{quoted([places[first], places[later]])}" for later, first in pairs[:5])
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        raise DataError(
            f"{name}: classes whose names differ in case, spaces or Unicode form only: {both}{more}. Put the "
            "images of one class into folders of one name, or rename one of them to tell two classes apart."
        )


def _nothing(name: str, top: Folder, others: Counter[str]) -> str:
    """Why a folder without a single image in a folder of its own cannot serve."""
    if top.direct:
        return (
            f"{name}: {len(top.direct)} images, but no class folders. Put each class's images into a "
            "folder of its own, or list the images in a CSV file with the columns path and label."
        )
    if top.folders:
        return f"{name}: no images in {quoted([folder.name for folder in top.folders])}{_beside(others)}."
    return f"{name}: no images and no class folders{_beside(others)}."


def _beside(others: Counter[str]) -> str:
    if not others:
        return ""
    kinds = ", ".join(kind for kind, _ in others.most_common(5))
    return f" (only {others.total()} other files: {kinds})"
