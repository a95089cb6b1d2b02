"""Groups: images of one patient or scene, which must be in the same split.

If images of one patient are in train and test, the network can recognise the patient, and test accuracy
is too high.
"""

import dataclasses
import os
from collections.abc import Sequence
from itertools import chain
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


def assign_groups(source: Source, given: str, group_by: str) -> Source:
    """``source`` with the group of each image.

    Args:
        given: the source as the recipe names it.
        group_by: a regular expression with one capture group, if it contains a bracket; else the name of a
            CSV column. The pattern is searched in each file name, or in the whole path if it contains a
            slash, and the captured text is the group. Drawn images ignore it and are grouped in pairs.

    Raises:
        DataError: the pattern does not match a name, or takes too long; the column does not exist or a cell
            is empty; or the images have no file names.
    """
    if given == DRAWN:
        return with_paired_groups(source)
    names = {name: [split.name(i) for i in range(len(split))] for name, split in source.splits.items()}
    unique = list(dict.fromkeys(chain.from_iterable(names.values())))
    if "(" in group_by:
        label_of = _match_pattern(source, unique, group_by)
    else:
        label_of = _look_up_column(source, given, unique, group_by)
    splits, seen = {}, {}
    for name, split in source.splits.items():
        labels = [label_of[each] for each in names[name]]
        # The number depends only on the label, so that new groups change no other. 63 bits keep it positive.
        groups = np.fromiter((key(0, each) >> 1 for each in labels), dtype=np.int64, count=len(labels))
        splits[name] = dataclasses.replace(split, groups=groups)
        seen[name] = set(labels)
    number = len(set().union(*seen.values()))
    notes = [*source.notes, f"{number} groups by {printable(group_by)}; intervals count groups, not images"]
    for name in ("val", "test"):
        if name in seen and (both := seen.get("train", set()) & seen[name]):
            notes.append(
                f"{len(both)} groups are in both train and {name}, so accuracy on {name} is too high"
            )
    return dataclasses.replace(source, splits=splits, notes=tuple(notes))


def split_by_group(
    targets: Indices, groups: Indices, fraction: float, seed: int, classes: Sequence[str]
) -> tuple[Indices, Indices]:
    """Split image indices into (rest, held out), both sorted, with whole groups.

    A keyed hash of its number decides whether a group is held out, so adding an image or a group moves no
    other. With few groups, this may give a class less than half or more than twice its share, or leave it on
    one side only. Then groups are taken in the order of their hashes, each if it brings the class shares
    closer to ``fraction``. Every class is on both sides.

    Args:
        targets: (N,), the class of each image.
        groups: (N,), the number of each image's group.
        fraction: the share of the images to hold out, in 0..1 exclusive.

    Raises:
        DataError: a class is in too few groups to be on both sides.
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
        # A class of few large groups may still be on one side only.
        for side in (True, False):
            if not _has(shares, held == side, missing):
                _move(shares, held, missing, side, fraction, names)
    is_held = held[group]
    return np.flatnonzero(~is_held).astype(np.int64), np.flatnonzero(is_held).astype(np.int64)


def _is_fair(share: npt.NDArray[np.float64], fraction: float) -> bool:
    """Whether each class has between half and twice its intended share on both sides."""
    low = max(fraction / 2, 1 - 2 * (1 - fraction))
    high = min(2 * fraction, 1 - (1 - fraction) / 2)
    return bool(((share >= low) & (share <= high) & (share > 0) & (share < 1)).all())


def _nearest(
    shares: npt.NDArray[np.float64], draw: npt.NDArray[np.uint64], fraction: float
) -> npt.NDArray[np.bool_]:
    """Groups, in the order of ``draw``, that each bring the class shares closer to ``fraction``."""
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
    """Move a group with class ``missing`` to ``side`` (True: held out), the one that changes shares least."""
    best, least = None, np.inf
    for index in np.flatnonzero((shares[:, missing] > 0) & (held != side)):
        moved = held.copy()
        moved[index] = side
        others = [place for place in range(shares.shape[1]) if place != missing]
        complete = all(_has(shares, moved != side, place) for place in (*others, missing))
        distance = _distance(shares[moved].sum(axis=0), fraction)
        if complete and distance < least:
            best, least = index, distance
    if best is None:
        count = int((shares[:, missing] > 0).sum())
        number = "1 group" if count == 1 else f"{count} groups"
        raise DataError(
            f"class {quoted([classes[missing]])} is in {number}, too few to have every class in every split. "
            "Add groups, define the splits yourself, or remove data.group_by."
        )
    held[best] = side


def _has(shares: npt.NDArray[np.float64], on: npt.NDArray[np.bool_], place: int) -> bool:
    return bool((shares[on, place] > 0).any())


def _distance(share: npt.NDArray[np.float64], fraction: float) -> float:
    return float(((share - fraction) ** 2).sum())


def _match_pattern(source: Source, names: list[str], pattern: str) -> dict[str, str]:
    """Image name -> group, by a pattern in the name."""
    whole = "/" in pattern
    for name in names:
        if not os.path.exists(name):  # noqa: PTH110  (a Path for each of a million names is slow)
            raise DataError(
                f"{printable(source.name)}: data.group_by is a pattern for file names, but these images are "
                "not files. Remove it."
            )
    searched = [name.replace(os.sep, "/") if whole else os.path.basename(name) for name in names]  # noqa: PTH119
    labels: dict[str, str] = {}
    for name, found in zip(names, match_groups(pattern, searched), strict=True):
        if found is None:
            where = "path" if whole else "name"
            raise DataError(
                f"{printable(name)}: data.group_by ({printable(pattern)}) does not match this {where}"
            )
        labels[name] = found
    return labels


def _look_up_column(source: Source, given: str, names: list[str], column: str) -> dict[str, str]:
    """Image name -> group, from a column of the CSV file ``given``."""
    table = Path(given).expanduser()
    if not table.is_file():
        raise DataError(
            f"{printable(source.name)}: data.group_by names a column ('{printable(column)}'), but this is "
            "not a CSV file. For files, give a pattern with one capture group, such as '^(patient[0-9]+)_'."
        )
    values = column_values(table, column)
    if empty := next((name for name in names if not values.get(name)), None):
        raise DataError(
            f"{printable(given)}: {printable(empty)} has no value in column '{printable(column)}'"
        )
    return values
