"""Choose the images that a run is evaluated on: its own splits as recorded, or other data."""

from dataclasses import dataclass, field

import numpy as np

from finetune.data.dataset import Split
from finetune.data.holdout.recorded import SAME, SplitRecord
from finetune.data.sources.read import is_path, read_other_source
from finetune.errors import DataError, printable
from finetune.evaluation.choose_split import choose_split
from finetune.training.run.own_data import (
    OwnData,
    own_data,
    read_record,
    read_undivided,
    recorded_places,
    same_place,
)
from finetune.training.setup.prepare import reading_of
from finetune.training.trained import Trained

# What a run was trained on or chosen by, so that its numbers there flatter it.
SEEN = ("train", "val")


@dataclass(frozen=True)
class EvaluationImages:
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


def own_split(trained: Trained, name: str) -> Split:
    """The images of split ``name`` of a run, without those that are gone or changed.

    Raises:
        DataError: they are not found, cannot be read, or none is left.
    """
    return images_to_evaluate(trained, name).images


def images_to_evaluate(
    trained: Trained,
    wanted: str | None = None,
    given: str | None = None,
    *,
    strict: bool = False,
    include_seen: bool = False,
) -> EvaluationImages:
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


def _own(trained: Trained, own: OwnData, wanted: str | None, *, strict: bool) -> EvaluationImages:
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
    return EvaluationImages(name, images, notes, tuple(warnings), own.drift.counts())


def _other(
    trained: Trained,
    record: SplitRecord | None,
    given: str,
    wanted: str | None,
    *,
    strict: bool,
    include_seen: bool,
) -> EvaluationImages:
    source = read_other_source(given, reading_of(trained.recipe.data))
    name, images = choose_split(source, wanted, trained.card.classes)
    if record is None:
        return EvaluationImages(name, images, source.notes)
    names = (images.name(index) for index in range(len(images)))
    seen = np.asarray([each is not None for each in record.splits_by_content(names, SEEN)], dtype=bool)
    number = int(seen.sum())
    if not number:
        return EvaluationImages(name, images, source.notes, (), {"seen": 0})
    how_many = (
        f"{number:,} of {len(images):,} images of {printable(source.name)} are in the run's train or val"
    )
    if strict:
        raise DataError(f"{how_many}. Leave out --strict to judge the others.")
    if include_seen:
        warning = f"{how_many}, and are judged as well: these numbers flatter the network"
        return EvaluationImages(name, images, source.notes, (warning,), {"seen": number})
    if seen.all():
        raise DataError(
            f"{printable(source.name)}: all {number:,} images are in the run's train or val, and say "
            "nothing of how "
            "good it is on others. Give other images, or judge these with --include-seen."
        )
    warning = f"{how_many}, and were left out (--include-seen judges them too)"
    rest = images.subset(np.flatnonzero(~seen))
    return EvaluationImages(name, rest, source.notes, (warning,), {"seen": number})


def _own_if_given(trained: Trained, record: SplitRecord, given: str, wanted: str | None) -> OwnData | None:
    """The run's own data, where ``given`` is that; else None."""
    data, classes, verify = trained.recipe.data, trained.card.classes, _verified(record, wanted)
    if not (is_path(given) and is_path(data.source)):
        same = given == data.source
        return own_data(trained.run, data, record, classes, verify=verify) if same else None
    if any(same_place(given, place) for place in recorded_places(trained.run, data)[:1]):
        return own_data(trained.run, data, record, classes, verify=verify, place=given)
    if record.found_in(read_other_source(given, reading_of(data))) < SAME:
        return None
    return own_data(trained.run, data, record, classes, verify=verify, place=given)


def _unrecorded(trained: Trained, wanted: str | None) -> EvaluationImages:
    source = read_undivided(trained.recipe.data, groups=False)
    if "test" not in source.splits and "val" not in source.splits:
        raise DataError(
            f"{printable(trained.run)}: an earlier version made this run, which did not record its splits. "
            "Its test "
            "images cannot be told from those it was trained on: train it again, or give images that it "
            "has not seen with --data."
        )
    name, images = choose_split(source, wanted, trained.card.classes)
    return EvaluationImages(name, images, source.notes)


def _verified(record: SplitRecord, wanted: str | None) -> tuple[str, ...]:
    """The split whose contents matter: the one that will be judged."""
    return (wanted,) if wanted else ("test",) if "test" in record.splits else ("val",)
