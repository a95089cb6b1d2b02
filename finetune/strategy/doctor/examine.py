"""A source to the doctor's report: the table of contents."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions
from finetune.data.holdout.splits import hold_out_splits
from finetune.errors import DataError
from finetune.recipe.schema import DataSection, default_of
from finetune.strategy.doctor.checks import (
    Seen,
    check_classes,
    check_copies,
    check_files,
    check_names,
    class_counts,
)
from finetune.strategy.doctor.findings import Finding, in_order
from finetune.strategy.doctor.image_facts import ImageFacts, look_at_all
from finetune.strategy.doctor.inventory import take_inventory
from finetune.strategy.doctor.near_duplicates import Twin, near_duplicates

Watch = Callable[[Iterable[ImageFacts], int], Iterable[ImageFacts]]


@dataclass(frozen=True)
class Report:
    """What the doctor says of a source.

    Attributes:
        source: its name.
        classes: split -> class -> images that can be read.
        facts: JSON-ready: images, sizes in pixels (smallest, median and largest width and height), aspect
            ratios (width to height), formats, and shares (0 to 1) of grey, transparent and turned images.
        findings: what harms most first.
        notes: what a training says of how the source was read, as far as it is no finding.
    """

    source: str
    classes: dict[str, dict[str, int]]
    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "classes": self.classes,
            "facts": self.facts,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }


def examine(
    source: str,
    watch: Watch = lambda looks, total: looks,
    reading: SourceOptions = DEFAULT_OPTIONS,
) -> Report:
    """Look at every image of ``source``, anything that a recipe's ``data.source`` may be.

    Args:
        watch: passes the looks on, of so many in all, and may show how far they are.
        reading: how the source is to be read.

    Raises:
        DataError: there is no such source, or not one image in it.
    """
    inventory = take_inventory(source, reading)
    seen = list(_see(inventory.source, watch))
    findings = [*inventory.findings, *check_files(seen), *check_names(inventory.source)]
    findings += check_classes(inventory.source.classes, seen)
    carved: tuple[str, ...] = ()
    if inventory.usable:
        too_few, carved = _check_splits(inventory.source, seen)
        findings += too_few
    findings += check_copies(seen, _twins(seen))
    counts = class_counts(inventory.source.classes, seen)
    said = {finding.message for finding in findings}
    notes = tuple(note for note in (*inventory.source.notes, *carved) if note not in said)
    return Report(inventory.source.name, counts, _facts(seen), tuple(in_order(findings)), notes)


def _see(source: Source, watch: Watch) -> Iterator[Seen]:
    total = sum(map(len, source.splits.values()))

    def looks() -> Iterator[ImageFacts]:
        for split in source.splits.values():
            yield from look_at_all(split.images)

    places = (
        (name, source.classes[int(target)])
        for name, split in source.splits.items()
        for target in split.targets
    )
    for look, (split_name, label) in zip(watch(looks(), total), places, strict=True):
        yield Seen(look, split_name, label)


def _twins(seen: list[Seen]) -> list[Twin]:
    """Near-duplicates, by their place in ``seen``."""
    whole = [index for index, each in enumerate(seen) if not each.look.fault]
    twins = near_duplicates([seen[index].look for index in whole])
    return [Twin(whole[twin.first], whole[twin.second], twin.mirrored) for twin in twins]


def _check_splits(source: Source, seen: list[Seen]) -> tuple[list[Finding], tuple[str, ...]]:
    """Whether what can be read suffices for train, val and test, and what a training says of carving them."""
    splits, start = {}, 0
    for name, split in source.splits.items():
        part = seen[start : start + len(split)]
        splits[name] = split.subset([index for index, each in enumerate(part) if not each.look.fault])
        start += len(split)
    try:
        carved = hold_out_splits(
            Source(source.name, source.classes, splits),
            # What a recipe carves where it says nothing else.
            val_fraction=default_of(DataSection, "val_fraction"),
            test_fraction=default_of(DataSection, "test_fraction"),
            seed=0,
        )
    except DataError as error:
        return [Finding("too-few", (), str(error))], ()
    return [], carved.notes


def _facts(seen: list[Seen]) -> dict[str, Any]:
    looks = [each.look for each in seen if not each.look.fault]
    facts: dict[str, Any] = {"images": len(seen), "readable": len(looks)}
    if not looks:
        return facts
    sizes = np.asarray([look.size for look in looks], dtype=np.float64)
    aspects = sizes[:, 0] / sizes[:, 1]
    for name, values in (("width", sizes[:, 0]), ("height", sizes[:, 1]), ("aspect", aspects)):
        spread = (values.min(), np.median(values), values.max())
        facts[name] = dict(zip(("min", "median", "max"), (round(float(v), 3) for v in spread), strict=True))
    facts["formats"] = dict(Counter(look.format for look in looks if look.format).most_common())
    for name, count in (
        ("grey_share", sum(look.is_grey for look in looks)),
        ("alpha_share", sum(look.has_alpha for look in looks)),
        ("exif_rotated_share", sum(look.orientation != 1 for look in looks)),
    ):
        facts[name] = round(count / len(looks), 4)
    return facts
