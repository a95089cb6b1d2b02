"""A run's own images, divided as it recorded; and which images an evaluation may look at."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune.checkpoint.storage import read_document
from finetune.data.holdout.groups import with_groups
from finetune.data.holdout.recorded import SAME, SPLITS, Drift, Record
from finetune.data.sources.dataset import Source, Split
from finetune.data.sources.read import is_place, read_like, read_source
from finetune.disk.regular import TABLE_BYTES, read_regular
from finetune.errors import CheckpointError, DataError, printable
from finetune.evaluation.choose_split import choose_split
from finetune.recipe.schema import DataSection
from finetune.training.run import files
from finetune.training.setup import reading_of
from finetune.training.trained import Trained

# What a run was trained on or chosen by, so that its numbers there flatter it.
SEEN = ("train", "val")


@dataclass(frozen=True)
class OwnData:
    """A run's images as they are now.

    Attributes:
        source: divided as recorded.
        drift: how it differs from what was recorded.
        place: what was read: a path, or the name of a known set.
        classes: that there are now, in the order of the source.
    """

    source: Source
    drift: Drift
    place: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Images to evaluate a run on, with the targets in the order of its classes.

    Attributes:
        name: train, val, test, or all for other data without splits.
        images: the images.
        notes: what the user should know of them.
        warnings: what makes the numbers worth less.
        counts: how many images are missing, changed, new, or left out since the run has seen them.
    """

    name: str
    images: Split
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


def read_undivided(data: DataSection, place: str | None = None, *, groups: bool = True) -> Source:
    """Read the recipe's source, before anything is carved out of it.

    Args:
        place: where it lies now; None: where the recipe says.
        groups: whether to find the groups of ``data.group_by``.

    Raises:
        DataError: it cannot be read.
    """
    place = data.source if place is None else place
    source = read_source(place, reading_of(data))
    return with_groups(source, place, data.group_by) if groups and data.group_by is not None else source


def whereabouts(place: str, run: Path) -> dict[str, str] | None:
    """Where a run's images lie: the path, and the path as seen from the run. None for a known set."""
    if not is_place(place):
        return None
    absolute = os.path.abspath(Path(place).expanduser())  # noqa: PTH100  (links stay as they are)
    found = {"absolute": absolute}
    with contextlib.suppress(ValueError):  # On Windows, there is no way from one drive to another.
        found["from_run"] = os.path.relpath(os.path.realpath(absolute), os.path.realpath(run))
    return found


def read_record(run: Path) -> Record | None:
    """The splits that a run recorded; None for a run of an earlier version.

    Raises:
        CheckpointError: the file is something else, or cannot be read.
    """
    path = run / files.SPLITS
    if not path.is_file():
        return None
    try:
        content = read_regular(path, TABLE_BYTES)
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from None
    return Record.from_csv(content, str(path))


def own_data(
    run: Path,
    data: DataSection,
    record: Record,
    classes: Sequence[str],
    *,
    verify: Sequence[str] = SPLITS,
    groups: bool = False,
    take_changed: bool = False,
    place: str | None = None,
) -> OwnData:
    """Find the images of a run and divide them as it recorded.

    They are looked for where they lay when the run began; then in the same place as seen from the run; then
    where the recipe's text leads from the working directory. What is found in the latter two has to be the
    run's own images, at least half of them: another folder of the same name is never taken.

    Args:
        data: the recipe's.
        classes: the run's, in the order of its targets.
        verify, take_changed: as :meth:`Record.divide`.
        groups: whether to find the groups of ``data.group_by``.
        place: what to read instead.

    Raises:
        DataError: they are not found, or cannot be read.
    """
    source, found = (
        (read_undivided(data, place, groups=groups), place)
        if place is not None
        else _find(run, data, record, groups)
    )
    if data.fold is not None:
        # Which no fold has looked at.
        rest = {name: split for name, split in source.splits.items() if name != "test"}
        source = dataclasses.replace(source, splits=rest)
    divided, drift = record.divide(source, classes, verify=verify, take_changed=take_changed)
    return OwnData(divided, drift, found, source.classes)


def own_split(trained: Trained, name: str) -> Split:
    """The images of split ``name`` of a run, without those that are gone or changed.

    Raises:
        DataError: they are not found, cannot be read, or none is left.
    """
    return images_to_judge(trained, name).images


def images_to_judge(
    trained: Trained,
    wanted: str | None = None,
    given: str | None = None,
    *,
    strict: bool = False,
    include_seen: bool = False,
) -> Judged:
    """Which images say how good a run is.

    Args:
        wanted: train, val or test; None: test, or val where there is no test split.
        given: a source other than the run's own. Where it is the run's own data after all, by its place or
            by the contents of its files, the run's splits count. Of other data, images that the run was
            trained on or chosen by are left out.
        strict: refuse images that are missing, changed, new or seen, in place of leaving them out.
        include_seen: take ``given`` as it is.

    Raises:
        DataError: there are no such images; with ``strict``, they are not what the run recorded.
    """
    record = read_record(trained.run)
    if given is not None:
        own = None if include_seen or record is None else _own_if_given(trained, record, given, wanted)
        if own is None:
            return _other(trained, record, given, wanted, strict=strict, include_seen=include_seen)
    elif record is None:
        return _unrecorded(trained, wanted)
    else:
        verify = _verified(record, wanted)
        own = own_data(trained.run, trained.recipe.data, record, trained.card.classes, verify=verify)
    return _own(trained, own, wanted, strict=strict)


def _own(trained: Trained, own: OwnData, wanted: str | None, *, strict: bool) -> Judged:
    name, images = choose_split(own.source, wanted, trained.card.classes)
    lines = own.drift.lines()
    where = printable(own.place)
    if lines and strict:
        raise DataError(
            f"{where}: not the images that {printable(trained.run)} recorded:\n  " + "\n  ".join(lines) + "\n"
            "Put them back, or leave out --strict to judge those that are still there and still the same."
        )
    if not len(images):
        raise DataError(
            f"{where}: none of the images of {name} that {printable(trained.run)} recorded is there and "
            "still the "
            "same. Put them back, or give other images with --data."
        )
    counts = ", ".join(f"{len(split):,} {each}" for each, split in own.source.splits.items())
    notes = (*own.source.notes, f"splits as {printable(trained.run)} recorded them: {counts}")
    warnings = []
    if lines:
        left_out = len(own.drift.missing.get(name, [])) + len(own.drift.changed.get(name, []))
        warnings.append(
            f"{where}: the images are not all those that the run recorded:\n  "
            + "\n  ".join(lines)
            + f"\n  Of {name}, {len(images):,} of {len(images) + left_out:,} recorded images are judged"
            + ("; new ones belong to no split" if own.drift.new else "")
            + "."
        )
    return Judged(name, images, notes, tuple(warnings), own.drift.counts())


def _other(
    trained: Trained,
    record: Record | None,
    given: str,
    wanted: str | None,
    *,
    strict: bool,
    include_seen: bool,
) -> Judged:
    source = read_like(given, reading_of(trained.recipe.data))
    name, images = choose_split(source, wanted, trained.card.classes)
    if record is None:
        return Judged(name, images, source.notes)
    names = (images.name(index) for index in range(len(images)))
    seen = np.asarray([each is not None for each in record.splits_by_content(names, SEEN)], dtype=bool)
    number = int(seen.sum())
    if not number:
        return Judged(name, images, source.notes, (), {"seen": 0})
    how_many = (
        f"{number:,} of {len(images):,} images of {printable(source.name)} are in the run's train or val"
    )
    if strict:
        raise DataError(f"{how_many}. Leave out --strict to judge the others.")
    if include_seen:
        warning = f"{how_many}, and are judged as well: these numbers flatter the network"
        return Judged(name, images, source.notes, (warning,), {"seen": number})
    if seen.all():
        raise DataError(
            f"{printable(source.name)}: all {number:,} images are in the run's train or val, and say "
            "nothing of how "
            "good it is on others. Give other images, or judge these with --include-seen."
        )
    warning = f"{how_many}, and were left out (--include-seen judges them too)"
    rest = images.subset(np.flatnonzero(~seen))
    return Judged(name, rest, source.notes, (warning,), {"seen": number})


def _own_if_given(trained: Trained, record: Record, given: str, wanted: str | None) -> OwnData | None:
    """The run's own data, where ``given`` is that; else None."""
    data, classes, verify = trained.recipe.data, trained.card.classes, _verified(record, wanted)
    if not (is_place(given) and is_place(data.source)):
        same = given == data.source
        return own_data(trained.run, data, record, classes, verify=verify) if same else None
    if any(_is_same_place(given, place) for place in _places(trained.run, data)[:1]):
        return own_data(trained.run, data, record, classes, verify=verify, place=given)
    if record.found_in(read_like(given, reading_of(data))) < SAME:
        return None
    return own_data(trained.run, data, record, classes, verify=verify, place=given)


def _unrecorded(trained: Trained, wanted: str | None) -> Judged:
    source = read_undivided(trained.recipe.data, groups=False)
    if "test" not in source.splits and "val" not in source.splits:
        raise DataError(
            f"{printable(trained.run)}: an earlier version made this run, which did not record its splits. "
            "Its test "
            "images cannot be told from those it was trained on: train it again, or give images that it "
            "has not seen with --data."
        )
    name, images = choose_split(source, wanted, trained.card.classes)
    return Judged(name, images, source.notes)


def _verified(record: Record, wanted: str | None) -> tuple[str, ...]:
    """The split whose contents matter: the one that will be judged."""
    return (wanted,) if wanted else ("test",) if "test" in record.splits else ("val",)


def _find(run: Path, data: DataSection, record: Record, groups: bool) -> tuple[Source, str]:
    if not is_place(data.source):
        return read_undivided(data, groups=groups), data.source
    places = _places(run, data)
    for number, place in enumerate(places):
        if not Path(place).exists():
            continue
        source = read_undivided(data, place, groups=groups)
        if number == 0 or record.resembles(source):
            return source, place
    there = [printable(place) for place in places if Path(place).exists()]
    other = f" {printable(there[0])} holds other images." if there else ""
    raise DataError(
        f"{printable(places[0])}: the images that {printable(run)} was trained on are not there any "
        f"more.{other} "
        "Where they lie elsewhere now, say so with --data (eval) or --set data.source=... (train --resume)."
    )


def _places(run: Path, data: DataSection) -> list[str]:
    """Where the images of a run may lie, best first: there they certainly lay, then as seen from ..."""
    known: Any = None
    if (run / files.ENVIRONMENT).is_file():
        environment = read_document(run / files.ENVIRONMENT)
        known = environment.get("data_source") if isinstance(environment, dict) else None
    here = os.path.abspath(Path(data.source).expanduser())  # noqa: PTH100
    if not isinstance(known, dict):
        return [here]
    found = [known.get("absolute")]
    if isinstance(known.get("from_run"), str):
        found.append(os.path.normpath(os.path.join(os.path.realpath(run), known["from_run"])))  # noqa: PTH118
    places = [each for each in found if isinstance(each, str)] + [here]
    # As the recipe spells it, where that is what it means here.
    spelt = data.source if Path(data.source).exists() else None
    return list(dict.fromkeys(spelt if spelt and _is_same_place(spelt, each) else each for each in places))


def _is_same_place(one: str, other: str) -> bool:
    try:
        return os.path.samefile(Path(one).expanduser(), other)  # noqa: PTH121
    except OSError:
        return False
