"""Choose the images that a run is evaluated on: its own splits as recorded, or other data."""

from dataclasses import dataclass, field

import numpy as np

from finetune.data.dataset import Source, Split
from finetune.data.holdout.groups import assign_groups
from finetune.data.holdout.recorded import SAME, SplitRecord
from finetune.data.sources.read import is_path, read_other_source
from finetune.errors import DataError, printable
from finetune.evaluation.choose_split import choose_split
from finetune.recipe.catalog import DRAWN
from finetune.training.run.own_data import OwnData, RecordedData, read_undivided, same_place
from finetune.training.setup.prepare import reading_of
from finetune.training.trained import Trained

# The splits that a run was trained or selected on: metrics on them are too good.
SEEN = ("train", "val")


@dataclass(frozen=True)
class EvaluationImages:
    """Images to evaluate a run on, with targets in the order of its classes.

    Attributes:
        name: ``train``, ``val`` or ``test``; ``all`` for other data without splits.
        notes: information for the user.
        warnings: reasons to trust the metrics less.
        counts: the numbers of missing, changed, new and seen images.
    """

    name: str
    images: Split
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


def images_to_evaluate(
    trained: Trained,
    wanted: str | None = None,
    given: str | None = None,
    *,
    strict: bool = False,
    include_seen: bool = False,
) -> EvaluationImages:
    """Choose the images to evaluate a run on.

    Args:
        wanted: ``train``, ``val`` or ``test``; None: test, or val if there is no test split.
        given: a source to evaluate instead of the run's own. If it is the run's own data after all, by its
            path or by the contents of its files, the run's splits apply. Of other data, images that are in
            the run's train or val are left out.
        strict: refuse missing, changed, new and seen images instead of leaving them out.
        include_seen: evaluate ``given`` as it is.

    Raises:
        DataError: there are no such images; with ``strict``, they differ from what the run recorded.
    """
    recorded = RecordedData.read(trained.run, trained.recipe.data, trained.card.classes)
    if given is not None:
        own = None if include_seen or recorded is None else _own_if_given(recorded, given, wanted)
        if own is None:
            record = None if recorded is None else recorded.record
            return _other(trained, record, given, wanted, strict=strict, include_seen=include_seen)
    elif recorded is None:
        return _unrecorded(trained, wanted)
    else:
        own = _find(recorded, None, wanted)
    return _own(trained, own, wanted, strict=strict)


def _own(trained: Trained, own: OwnData, wanted: str | None, *, strict: bool) -> EvaluationImages:
    source, warnings = _grouped(own.source, own.place, trained.recipe.data.group_by)
    name, images = choose_split(source, wanted, trained.card.classes)
    lines = own.changes.lines()
    where = printable(own.place)
    if lines and strict:
        raise DataError(
            f"{where}: not the images that {printable(trained.run)} recorded:\n  " + "\n  ".join(lines) + "\n"
            "Put them back, or leave out --strict to evaluate the unchanged ones."
        )
    if not len(images):
        raise DataError(
            f"{where}: no image of {name} is left unchanged since {printable(trained.run)} recorded it. "
            "Put them back, or give other images with --data."
        )
    counts = ", ".join(f"{len(split):,} {each}" for each, split in source.splits.items())
    notes = (*source.notes, f"splits as {printable(trained.run)} recorded them: {counts}")
    if name == "val" and trained.recipe.train.refit:
        warnings.append("the network was trained on val, too (train.refit): these numbers are too good")
    if lines:
        left_out = len(own.changes.missing.get(name, [])) + len(own.changes.changed.get(name, []))
        warnings.append(
            f"{where}: some images differ from what the run recorded:\n  "
            + "\n  ".join(lines)
            + f"\n  Of {name}, {len(images):,} of {len(images) + left_out:,} recorded images are evaluated"
            + ("; new ones belong to no split" if own.changes.new else "")
            + "."
        )
    return EvaluationImages(name, images, notes, tuple(warnings), own.changes.counts())


def _other(
    trained: Trained,
    record: SplitRecord | None,
    given: str,
    wanted: str | None,
    *,
    strict: bool,
    include_seen: bool,
) -> EvaluationImages:
    section = trained.recipe.data
    source, warnings = _grouped(read_other_source(given, reading_of(section)), given, section.group_by)
    name, images = choose_split(source, wanted, trained.card.classes)
    if record is None:
        return EvaluationImages(name, images, source.notes, tuple(warnings))
    names = (images.name(index) for index in range(len(images)))
    seen = np.asarray([each is not None for each in record.splits_by_content(names, SEEN)], dtype=bool)
    number = int(seen.sum())
    if not number:
        return EvaluationImages(name, images, source.notes, tuple(warnings), {"seen": 0})
    how_many = (
        f"{number:,} of {len(images):,} images of {printable(source.name)} are in the run's train or val"
    )
    if strict:
        raise DataError(f"{how_many}. Leave out --strict to evaluate the others.")
    if include_seen:
        warning = f"{how_many} and are evaluated as well: these numbers are too good"
        return EvaluationImages(name, images, source.notes, (*warnings, warning), {"seen": number})
    if seen.all():
        raise DataError(
            f"{printable(source.name)}: all {number:,} images are in the run's train or val, and cannot show "
            "how good it is on others. Give other images, or evaluate these with --include-seen."
        )
    warning = f"{how_many} and were left out (--include-seen evaluates them too)"
    rest = images.subset(np.flatnonzero(~seen))
    return EvaluationImages(name, rest, source.notes, (*warnings, warning), {"seen": number})


def _own_if_given(recorded: RecordedData, given: str, wanted: str | None) -> OwnData | None:
    """The run's own data if ``given`` is that, else None."""
    section = recorded.section
    if not (is_path(given) and is_path(section.source)):
        return _find(recorded, None, wanted) if given == section.source else None
    if not same_place(given, recorded.places()[0]):
        other = read_other_source(given, reading_of(section))
        if recorded.record.overlap(other) < SAME:
            return None
    return _find(recorded, given, wanted)


def _find(recorded: RecordedData, place: str | None, wanted: str | None) -> OwnData:
    """The run's own data, of which the split to evaluate is verified."""
    # Drawn images have no names: the places before they are split give their groups.
    drawn = recorded.section.source == DRAWN
    return recorded.find(place, verify=_verified(recorded, wanted), groups=drawn)


def _grouped(source: Source, place: str, group_by: str | None) -> tuple[Source, list[str]]:
    """The source with the groups of its images, or as it is with a warning if they are not known.

    Only images that belong to a split are asked for their group: others may have come later.
    """
    if group_by is None or all(split.groups is not None for split in source.splits.values()):
        return source, []
    try:
        return assign_groups(source, place, group_by), []
    except DataError as error:
        return source, [
            f"{error}\n  So their groups are not known: the intervals count images, and are too narrow if "
            "several images are of one group."
        ]


def _unrecorded(trained: Trained, wanted: str | None) -> EvaluationImages:
    source = read_undivided(trained.recipe.data, groups=False)
    if "test" not in source.splits and "val" not in source.splits:
        raise DataError(
            f"{printable(trained.run)}: an earlier version made this run and did not record its splits, so "
            "its test images are unknown. Train it again, or give unseen images with --data."
        )
    section = trained.recipe.data
    source, warnings = _grouped(source, section.source, section.group_by)
    name, images = choose_split(source, wanted, trained.card.classes)
    return EvaluationImages(name, images, source.notes, tuple(warnings))


def _verified(recorded: RecordedData, wanted: str | None) -> tuple[str, ...]:
    """The split whose file contents are verified: the one to evaluate."""
    return (wanted,) if wanted else ("test",) if "test" in recorded.record.splits else ("val",)
