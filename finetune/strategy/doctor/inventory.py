"""Reads a source even if training would refuse it, and examines the files around its images."""

import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions, Split
from finetune.data.images import FileImages
from finetune.data.sources.files.image_files import (
    SKIPPED_FILES,
    file_kind,
    is_image_file,
    loose_images_note,
    skipped_files_note,
)
from finetune.data.sources.files.walk import is_stray, walk_files
from finetune.data.sources.names.split_names import split_from_name
from finetune.data.sources.read import csv_path, read_source
from finetune.data.sources.tables.read import examine_table
from finetune.data.sources.tables.table import Fault, Table
from finetune.errors import BadImageError, DataError, printable
from finetune.image.decode import read_image
from finetune.strategy.doctor.findings import Finding

# The number of line numbers that a message lists.
LINES_SHOWN = 8


@dataclass(frozen=True)
class Inventory:
    """A source and the findings from reading it; ``usable`` unless training would refuse it."""

    source: Source
    findings: tuple[Finding, ...]
    usable: bool


def take_inventory(source: str, options: SourceOptions = DEFAULT_OPTIONS) -> Inventory:
    """Read ``source``, anything that a recipe's ``data.source`` may be.

    A source that training would refuse is read as far as possible. In a folder, each subfolder is a class,
    and a folder around classes that is named like a split is a split. In a table, valid rows are read, and
    faulty rows become findings.

    Raises:
        DataError: the source does not exist, or holds no image and no row.
    """
    table = csv_path(source, options)
    if table is not None:
        return _inventory_of_table(examine_table(table, options))
    root = Path(source).expanduser()
    try:
        found, refusal = read_source(source, options), None
    except DataError as error:
        refusal = Finding("unusable", (), f"training refuses this: {error}")
        anyway = _read_anyway(root) if root.is_dir() else None
        if anyway is None:
            raise
        found = anyway
    findings = [refusal] if refusal else []
    if root.is_dir():
        known = {split.name(i) for split in found.splits.values() for i in range(len(split))}
        findings.extend(_check_surroundings(root, known, found.notes))
    return Inventory(found, tuple(findings), refusal is None)


def _inventory_of_table(table: Table) -> Inventory:
    findings = _table_findings(table)
    if table.faults:
        number = "1 fault" if len(table.faults) == 1 else f"{len(table.faults):,} faults"
        findings.insert(0, Finding("unusable", (), f"training refuses this table: {number}, listed below"))
    valid = dataclasses.replace(table, faults=[])
    try:
        if table.rows or not table.faults:
            return Inventory(valid.source(), tuple(findings), not table.faults)
    except DataError as error:
        if not table.rows:
            raise
        findings.append(Finding("unusable", (), f"training refuses this: {error}"))
    found = {
        split: [(label, path) for label, paths in labels.items() for path in paths]
        for split, labels in valid.splits().items()
    }
    return Inventory(_source_of(table.name, found, table.notes), tuple(findings), False)


def _table_findings(table: Table) -> list[Finding]:
    """Group the faults of a table by kind and message, each group with all its files and lines.

    A row without a path is listed by its line.
    """
    groups: dict[tuple[str, str], list[Fault]] = {}
    for fault in sorted(table.faults, key=lambda each: each.line):
        groups.setdefault((fault.kind, fault.message), []).append(fault)
    return [
        Finding(
            kind, _table_files(table, faults), what if kind == "unusable" else f"{what} ({_lines(faults)})"
        )
        for (kind, what), faults in groups.items()
    ]


def _table_files(table: Table, faults: list[Fault]) -> tuple[str, ...]:
    if faults[0].kind == "unusable":
        return ()
    return tuple(fault.file or f"{table.name}:{fault.line}" for fault in faults)


def _lines(faults: list[Fault]) -> str:
    numbers = [str(fault.line) for fault in faults]
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    if len(numbers) > LINES_SHOWN:
        return f"lines {', '.join(numbers[:LINES_SHOWN])} and {len(numbers) - LINES_SHOWN:,} more"
    return f"lines {', '.join(numbers[:-1])} and {numbers[-1]}"


def _read_anyway(root: Path) -> Source | None:
    paths: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in walk_files(root):
        parts = Path(path).relative_to(root).parts
        if len(parts) < 2 or not is_image_file(path):
            continue
        split = split_from_name(parts[0]) if len(parts) > 2 else None
        paths[split or "all"].append((parts[1] if split else parts[0], path))
    return _source_of(printable(str(root)), paths) if paths else None


def _source_of(
    name: str, found: Mapping[str, Sequence[tuple[str, str]]], notes: Sequence[str] = ()
) -> Source:
    """Make a source of ``found`` (split -> class and path of each image), whatever it contains."""
    classes = tuple(sorted({label for entries in found.values() for label, _ in entries}))
    place = {label: index for index, label in enumerate(classes)}
    splits = {
        split: Split(
            FileImages(path for _, path in entries),
            np.asarray([place[label] for label, _ in entries], dtype=np.int64),
        )
        for split, entries in found.items()
    }
    return Source(name, classes, splits, tuple(notes))


def _check_surroundings(root: Path, known: set[str], notes: Sequence[str]) -> list[Finding]:
    """Find files and folders below ``root`` that are not images of the data set.

    Args:
        known: the paths of these images.
        notes: those of reading the source; findings use the same sentences.
    """
    hidden: list[str] = []
    strays: list[str] = []
    empty: list[str] = []
    disguised: dict[str, list[str]] = defaultdict(list)
    for folder, folders, files in os.walk(root):
        # Paths must match those of the readers. Path is slow, and normalises.
        below = folder.rstrip(os.sep) + os.sep
        hidden.extend(below + name for name in folders if is_stray(name))
        folders[:] = sorted(name for name in folders if not is_stray(name))
        if not folders and not files:
            empty.append(folder)
        for name in sorted(files):
            path = below + name
            if path in known or name.lower() in (".ds_store", "thumbs.db", "desktop.ini"):
                continue
            like_one = is_image_file(path)
            if not like_one and is_stray(name):
                continue
            contents = None if like_one else _contents(path)
            if contents is None:
                strays.append(path)
            else:
                disguised[contents].append(path)
    findings = []
    for path in sorted(hidden):
        images = sum(
            is_image_file(f"{inner}{os.sep}{name}") for inner, _, names in os.walk(path) for name in names
        )
        what = f"its {images} images are not used" if images else "it contains no images"
        findings.append(Finding("stray-folder", (path,), f"hidden or left behind by a tool; {what}"))
    findings.extend(_check_strays(root, strays, notes))
    for contents, paths in sorted(disguised.items()):
        message = f"contains {contents}, but has no image extension, and is not used"
        findings.append(Finding("mislabelled", tuple(paths), message))
    if empty:
        findings.append(Finding("empty-folder", tuple(empty), "it contains no files"))
    return findings


def _check_strays(root: Path, paths: Sequence[str], notes: Sequence[str]) -> list[Finding]:
    """Find files that are not used, with the sentences of the notes of reading."""
    hidden = [path for path in paths if is_stray(Path(path).name)]
    images: dict[str, list[str]] = defaultdict(list)
    rest = []
    for path in paths:
        if is_stray(Path(path).name):
            continue
        if is_image_file(path):
            images[printable(str(Path(path).parent))].append(path)
        else:
            rest.append(path)
    findings = [
        Finding("stray-file", tuple(found), loose_images_note(folder, len(found)))
        for folder, found in images.items()
    ]
    # A README beside the class folders is no problem; a file among the images may be.
    if among := [path for path in rest if Path(path).parent != root]:
        counted = skipped_files_note(
            printable(str(root)), Counter(file_kind(Path(path).name) for path in rest)
        )
        said = next((note for note in notes if SKIPPED_FILES in note), counted)
        findings.append(Finding("stray-file", tuple(among), said))
    if hidden:
        findings.append(Finding("stray-file", tuple(hidden), "hidden, and not used"))
    return findings


def _contents(path: str) -> str | None:
    """Return Pillow's name of the format of an image file; None if it is not one."""
    try:
        return read_image(Path(path), lambda image: image.format)
    except BadImageError:
        return None
