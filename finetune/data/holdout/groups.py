"""Images that belong together, of one patient or one scene, and splits that leave them together.

A network recognises the patient. With images of one in train and in test, test says how well it does that.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Source, quoted
from finetune.data.holdout.patterns import match_groups
from finetune.data.keys import key
from finetune.data.sources.named.drawn import with_paired_groups
from finetune.data.sources.tables.read import column_values
from finetune.errors import DataError, printable
from finetune.recipe.catalog import DRAWN

Indices = npt.NDArray[np.int64]
# What Wilson's interval, which counts images, does not know.
ALIKE = "where the images of a group fare alike, intervals are too narrow: they count images, not groups"


def assign_groups(source: Source, given: str, group_by: str) -> Source:
    """``source`` with the group of each image.

    Args:
        given: what the recipe names as its source.
        group_by: with a bracket in it, a pattern (regular expression) with one capture group, searched in
            each file's name, or in its whole path if there is a slash in the pattern; what the capture group
            matches is the image's group. Else the name of a column of the CSV file. Drawn images, which
            stand for any others, have neither, and go in pairs.

    Raises:
        DataError: a name that the pattern does not match, or not in bounded time; no such column, an empty
            cell, or a source of which images have no file names.
    """
    if given == DRAWN:
        return with_paired_groups(source)
    label = _by_pattern(source, group_by) if "(" in group_by else _by_column(source, given, group_by)
    splits, seen = {}, {}
    for name, split in source.splits.items():
        labels = [label(split.name(index)) for index in range(len(split))]
        # By the label alone, so that another group leaves the number of this one as it is. 63 bits: no sign.
        groups = np.fromiter((key(0, each) >> 1 for each in labels), dtype=np.int64, count=len(labels))
        splits[name] = dataclasses.replace(split, groups=groups)
        seen[name] = set(labels)
    number = len(set().union(*seen.values()))
    notes = [*source.notes, f"{number} groups by {printable(group_by)}", ALIKE]
    for name in ("val", "test"):
        if name in seen and (both := seen["train"] & seen[name]):
            notes.append(f"{len(both)} groups are in train and in {name} too: {name} flatters the network")
    return dataclasses.replace(source, splits=splits, notes=tuple(notes))


def split_by_group(
    targets: Indices, groups: Indices, fraction: float, seed: int, classes: Sequence[str]
) -> tuple[Indices, Indices]:
    """Divide images into (rest, held), both sorted, without dividing a group.

    Each group is held or not by the keyed hash of its number alone, so that an image or a group that is
    added moves no other one. Where that gives some class less than half or more than twice its share, or
    leaves a class on one side only, as it can with few groups, they are taken in the order of their hashes,
    each if it brings the held share of the classes nearer to ``fraction``. Every class is on both sides.

    Args:
        targets: (N,), the class of each image.
        groups: (N,), the number of each image's group.
        fraction: the share of the images to be held, 0..1 exclusive.

    Raises:
        DataError: a class cannot be on both sides, since too few groups have it.
    """
    numbers, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(group.max(initial=-1)) + 1, int(targets.max(initial=-1)) + 1))
    np.add.at(counts, (group, targets), 1.0)
    present = counts.sum(axis=0) > 0
    shares = counts[:, present] / counts[:, present].sum(axis=0)
    draw = np.fromiter((key(seed, "group", int(each)) for each in numbers), np.uint64, len(numbers))
    held = draw < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if not _is_fair(shares[held].sum(axis=0), fraction):
        held = _nearest(shares, draw, fraction)
    names = [name for name, there in zip(classes, present.tolist(), strict=False) if there]
    for missing in range(shares.shape[1]):
        # A class of few large groups may have been passed over, or taken whole.
        for side in (True, False):
            if not _has(shares, held == side, missing):
                _move(shares, held, missing, side, fraction, names)
    is_held = held[group]
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)


def _is_fair(share: npt.NDArray[np.float64], fraction: float) -> bool:
    """Whether each class gives half to twice its share, and keeps half to twice what it is to keep."""
    low = max(fraction / 2, 1 - 2 * (1 - fraction))
    high = min(2 * fraction, 1 - (1 - fraction) / 2)
    return bool(((share >= low) & (share <= high) & (share > 0) & (share < 1)).all())


def _nearest(
    shares: npt.NDArray[np.float64], draw: npt.NDArray[np.uint64], fraction: float
) -> npt.NDArray[np.bool_]:
    """The groups, taken in the order of ``draw``, that bring the classes' shares nearest to ``fraction``."""
    held = np.zeros(len(shares), dtype=bool)
    share = np.zeros(shares.shape[1])
    for index in np.argsort(draw, kind="stable"):
        if _distance(share + shares[index], fraction) < _distance(share, fraction):
            held[index] = True
            share = share + shares[index]
    return held


def _move(
    shares: npt.NDArray[np.float64],
    held: npt.NDArray[np.bool_],
    missing: int,
    side: bool,
    fraction: float,
    classes: Sequence[str],
) -> None:
    """Bring one group with class ``missing`` to ``side`` (True: held), the one that disturbs least."""
    best, least = None, np.inf
    for index in np.flatnonzero((shares[:, missing] > 0) & (held != side)):
        moved = held.copy()
        moved[index] = side
        others = [place for place in range(shares.shape[1]) if place != missing]
        kept = all(_has(shares, moved != side, place) for place in (*others, missing))
        distance = _distance(shares[moved].sum(axis=0), fraction)
        if kept and distance < least:
            best, least = index, distance
    if best is None:
        count = int((shares[:, missing] > 0).sum())
        number = "1 group" if count == 1 else f"{count} groups"
        raise DataError(
            f"class {quoted([classes[missing]])} is in {number}, which cannot be put so that every class is "
            "on every side. Add groups, give the splits yourself, or leave out data.group_by."
        )
    held[best] = side


def _has(shares: npt.NDArray[np.float64], on: npt.NDArray[np.bool_], place: int) -> bool:
    return bool((shares[on, place] > 0).any())


def _distance(share: npt.NDArray[np.float64], fraction: float) -> float:
    return float(((share - fraction) ** 2).sum())


def _by_pattern(source: Source, pattern: str) -> Callable[[str], str]:
    whole = "/" in pattern
    names = list(dict.fromkeys(s.name(index) for s in source.splits.values() for index in range(len(s))))
    for name in names:
        if not os.path.exists(name):  # noqa: PTH110  (a Path for each of a million names is slow)
            raise DataError(
                f"{printable(source.name)}: data.group_by is a pattern over file names, and these images "
                "have none"
            )
    searched = [name.replace(os.sep, "/") if whole else os.path.basename(name) for name in names]  # noqa: PTH119
    labels: dict[str, str] = {}
    for name, found in zip(names, match_groups(pattern, searched), strict=True):
        if found is None:
            where = "path" if whole else "name"
            raise DataError(
                f"{printable(name)}: data.group_by ({printable(pattern)}) finds no group in this {where}"
            )
        labels[name] = found
    return labels.__getitem__


def _by_column(source: Source, given: str, column: str) -> Callable[[str], str]:
    table = Path(given).expanduser()
    if not table.is_file():
        raise DataError(
            f"{printable(source.name)}: data.group_by is the name of a column ('{printable(column)}'), and "
            "this is no "
            "CSV file. For files, give a pattern with one capture group, such as '^(patient[0-9]+)_'."
        )
    values = column_values(table, column)

    def label(name: str) -> str:
        value = values[name]
        if not value:
            raise DataError(
                f"{printable(given)}: {printable(name)} has nothing in column '{printable(column)}'"
            )
        return value

    return label
