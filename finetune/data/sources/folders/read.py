"""Read a folder of images: one folder per class, with or without train, val and test folders around them."""

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
    """Read a folder with one folder per class, either directly in it or in train, val and test folders.

    A folder is a split if its name contains a split word (`train`, `Test_Set`, `seg_train` beside
    `seg_test`) and it has folders with images. One folder may surround all splits. Images may be at any
    depth below the folder of their class. Hidden folders and folders that tools leave behind are skipped.

    Args:
        as_classes: every subfolder of ``root`` is a class, whatever its name or content.

    Raises:
        DataError: there are no images or no classes; a class is empty; two folders are the same split, or
            train is missing; split folders are mixed with class folders; classes look like splits or sites;
            class names differ only in case, spaces or Unicode form; val or test has a class that train
            lacks.
    """
    name = printable(str(root))
    top, others = read_tree(root)
    if not top.filled_folders:
        raise DataError(_no_images_message(name, top, others))
    notes = []
    if top.own_images:
        notes.append(loose_images_note(name, len(top.own_images)))
    if others:
        notes.append(skipped_files_note(name, others))
    if as_classes:
        found = {"all": _images_by_class(name, top.folders)}
    else:
        found = _as_splits(name, top, notes) or {"all": _as_classes(name, top, notes)}
    _check_names(name, found)
    return source_from_paths(name, found, notes, os.fspath(root))


def _as_splits(name: str, top: Folder, notes: list[str]) -> dict[str, Classes] | None:
    """The images by split and class, if ``top`` or the one folder with images in it has splits; else None."""
    where, around = name, top
    while True:
        try:
            splits = find_split_folders(around)
        except AmbiguousLayoutError as ambiguity:
            raise DataError(f"{where}: {ambiguity}") from None
        if splits:
            break
        # One folder may surround the splits: images/train/cat/1.jpg, images/test/cat/2.jpg.
        if len(around.filled_folders) != 1 or around.filled_folders[0].own_images:
            return None
        around = around.filled_folders[0]
        where = f"{where}/{printable(around.name)}"
    if around is not top:
        notes.append(f"{name}: reading {where}, the only folder with images")
    if beside := [each.name for each in around.filled_folders if each not in splits]:
        notes.append(f"{where}: skipped images without labels in {quoted(beside)}")
    found, taken = _classes_of_splits(where, splits, notes)
    if "train" not in found:
        first = printable(next(iter(taken.values())))
        raise DataError(
            f"{where}: no train/ with class folders, only {quoted(list(taken.values()))}. To use "
            f"one of these as a whole data set, give that folder: {where}/{first}"
        )
    if any(each.lower() not in USUAL_NAMES for each in taken.values()):
        read = ", ".join(f"{printable(each)}/ as {split}" for split, each in taken.items())
        notes.append(f"{where}: split folders recognised by name: {read}")
    if list(found) == ["train"]:
        only = printable(taken["train"])
        notes.append(f"{where}: only {only}/ has classes; val and test are split off from it")
        return {"all": found["train"]}
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _classes_of_splits(
    where: str, splits: dict[Folder, str], notes: list[str]
) -> tuple[dict[str, Classes], dict[str, str]]:
    """Split -> images by class, and split -> folder name. Folders without classes are skipped.

    Raises:
        DataError: two folders are the same split, or a split folder has no valid classes.
    """
    found: dict[str, Classes] = {}
    taken: dict[str, str] = {}
    known: Sequence[str] = ()
    for folder, split in sorted(splits.items(), key=lambda each: each[1] != "train"):
        inside = f"{where}/{printable(folder.name)}"
        inner = class_folders(folder, known)
        if inner is None:
            notes.append(
                f"{where}: skipped {printable(folder.name)}/, whose images have no labels (it has no class "
                "folders)"
            )
            continue
        if split in taken:
            both = quoted(sorted([taken[split], folder.name]))
            raise DataError(f"{where}: {both} are both {split}. Keep one of them.")
        taken[split] = folder.name
        if inner is not folder:
            notes.append(f"{inside}: the classes are the folders in {printable(inner.name)}/")
            inside = f"{inside}/{printable(inner.name)}"
        if inner.own_images:
            notes.append(loose_images_note(inside, len(inner.own_images)))
        if has_two_splits(inner.filled_folders) or any(map(splits_inside, inner.filled_folders)):
            raise DataError(
                f"{inside}: this {split} folder contains folders named train, val or test. If it is a whole "
                f"data set, give {inside}. If the folders in it are classes, give {inside} and "
                f"{AS_CLASSES_HINT}."
            )
        _check_parts(inside, inner, notes)
        _note_split_names(inside, inner, notes)
        found[split] = _images_by_class(inside, inner.folders)
        known = known or tuple(found[split])
    return found, taken


def _as_classes(name: str, top: Folder, notes: list[str]) -> Classes:
    """The images by class, if ``top`` is a folder of classes without splits."""
    filled = top.filled_folders
    named = named_like_splits(filled)
    if named and (
        len(named) == len(filled) or has_two_splits([each for each in filled if each.name in named])
    ):
        raise DataError(
            f"{name}: {quoted(named)} contain images, but no class folders. "
            "Put the images of each class into their own folder, as in train/cat/1.jpg and train/dog/1.jpg, "
            "or list the images in a CSV file with the columns path and label. "
            f"If these folders are the classes, {AS_CLASSES_HINT}."
        )
    if nested := [folder.name for folder in filled if splits_inside(folder)]:
        first = printable(nested[0])
        raise DataError(
            f"{name}: {quoted(nested)} contain folders named train, val or test. If they are data sets, give "
            f"one of them, such as {name}/{first}. If they are classes with splits, put the split first, as "
            f"in train/{first}/1.jpg. If they are classes without splits, {AS_CLASSES_HINT}."
        )
    if by_class := splits_below(filled):
        folder, split, class_name = by_class
        raise DataError(
            f"{name}: the names of {quoted([each.name for each in filled])} name a class and a split. Put "
            f"the split first: {printable(folder)}/ becomes {split}/{printable(class_name)}/. If each is a "
            f"class, {AS_CLASSES_HINT}."
        )
    if (
        len(filled) == 1
        and len(top.folders) == 1
        and not filled[0].own_images
        and len(filled[0].filled_folders) > 1
    ):
        inner = f"{name}/{printable(filled[0].name)}"
        raise DataError(f"{name}: contains only one folder, with the classes inside it. Give {inner}")
    _check_parts(name, top, notes)
    _note_split_names(name, top, notes)
    return _images_by_class(name, top.folders)


def _note_split_names(where: str, folder: Folder, notes: list[str]) -> None:
    if names := [each.name for each in folder.filled_folders if parse_split_name(each.name)]:
        notes.append(f"{where}: {quoted(names)}: named like splits, but there are no splits; read as classes")


def _check_parts(where: str, folder: Folder, notes: list[str]) -> None:
    """Add a note on subfolders that classes share; DataError if those may be the classes."""
    try:
        same = parts_of_classes(folder.filled_folders)
    except AmbiguousLayoutError as ambiguity:
        raise DataError(f"{where}: {ambiguity}") from None
    if same:
        notes.append(
            f"{where}: the classes contain the same folders, {quoted(same)}, which were read as parts of them"
        )


def _images_by_class(where: str, folders: Sequence[Folder]) -> Classes:
    """Class name -> images. Names are normalized to NFC, because macOS writes decomposed names."""
    if empty := [each.name for each in folders if not each.has_images]:
        raise DataError(
            f"{where}: no images in {quoted(empty)}. Add images, or remove the folder if it is not a class."
        )
    found: Classes = {}
    for folder in folders:
        class_name = unicodedata.normalize("NFC", folder.name)
        if not is_class_name(class_name):
            raise DataError(
                f"{where}: the folder name '{printable(folder.name)}' contains control characters or is not "
                "UTF-8. Rename the folder: its name is the class name."
            )
        if class_name in found:
            raise DataError(
                f"{where}: two folders are named '{class_name}', in two Unicode forms. Merge or rename them."
            )
        found[class_name] = folder.images
    return found


def _check_names(name: str, found: dict[str, Classes]) -> None:
    """Refuse class names that differ only in case, spaces or Unicode form, in all splits together."""
    places: dict[str, str] = {}
    for split, classes in found.items():
        for each in classes:
            places.setdefault(each, each if split == "all" else f"{split}/{each}")
    if pairs := equivalent_names(places):
        both = "; ".join(f"{quoted([places[first], places[later]])}" for later, first in pairs[:5])
        more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        raise DataError(
            f"{name}: class names that differ only in case, spaces or Unicode form: {both}{more}. Merge "
            "folders of the same class, or rename one folder so that the names clearly differ."
        )


def _no_images_message(name: str, top: Folder, others: Counter[str]) -> str:
    """The error message for a folder without class folders that have images."""
    if top.own_images:
        return (
            f"{name}: {len(top.own_images)} images, but no class folders. Put the images of each class into "
            "their own folder, or list the images in a CSV file with the columns path and label."
        )
    kinds = ", ".join(kind for kind, _ in others.most_common(5))
    found = f" (only {others.total()} other files: {kinds})" if others else ""
    if top.folders:
        return f"{name}: no images in {quoted([folder.name for folder in top.folders])}{found}."
    return f"{name}: no images and no class folders{found}."
