"""From a source to the doctor's report: the table of contents."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions
from finetune.data.holdout.splits import hold_out_splits
from finetune.errors import DataError
from finetune.features.progress import OnProgress, no_progress
from finetune.recipe.schema import DataSection, default_of
from finetune.strategy.doctor.checks import check_classes, check_files, check_names
from finetune.strategy.doctor.copies import check_copies
from finetune.strategy.doctor.doubts import DoubtfulLabels
from finetune.strategy.doctor.findings import Finding, sort_findings
from finetune.strategy.doctor.image_facts import (
    Examined,
    ImageFacts,
    class_counts,
    read_all_facts,
)
from finetune.strategy.doctor.inventory import take_inventory
from finetune.strategy.doctor.near_duplicates import NearDuplicate, find_near_duplicates


@dataclass(frozen=True)
class Report:
    """The doctor's report on a source.

    Attributes:
        source: its name.
        classes: split -> class -> number of readable images.
        facts: JSON-ready: numbers of images, widths, heights (pixels) and aspect ratios (width to height)
            with minimum, median and maximum, formats, and shares (0 to 1) of grey, transparent and rotated
            images; and whether near-duplicates were searched (``near_copies_searched``).
        findings: the most harmful first.
        notes: the notes that training prints on how it reads the source, unless they are findings.
        doubts: the doubtful labels with their images; None: they were not searched.
    """

    source: str
    classes: dict[str, dict[str, int]]
    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    doubts: DoubtfulLabels | None = None

    def with_doubts(self, doubts: DoubtfulLabels) -> Self:
        """The report with doubtful labels among its findings."""
        findings = tuple(sort_findings([*self.findings, *doubts.findings()]))
        return replace(self, findings=findings, doubts=doubts)

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
    options: SourceOptions = DEFAULT_OPTIONS,
    progress: OnProgress = no_progress,
    *,
    near_copies: bool = True,
) -> Report:
    """Examine every image of ``source``, anything that a recipe's ``data.source`` may be.

    Args:
        options: how the source is read.
        near_copies: also search for near-duplicates, which takes longest on large sets.

    Raises:
        DataError: the source does not exist, or has no images.
    """
    inventory = take_inventory(source, options)
    examined = _examine_images(inventory.source, progress)
    findings = [*inventory.findings, *check_files(examined), *check_names(inventory.source)]
    findings += check_classes(inventory.source.classes, examined)
    split_notes: tuple[str, ...] = ()
    if inventory.usable:
        too_few, split_notes = _check_splits(inventory.source, examined)
        findings += too_few
    findings += check_copies(examined, _near_duplicates(examined) if near_copies else ())
    counts = class_counts(inventory.source.classes, examined)
    facts = _facts(examined) | {"near_copies_searched": near_copies}
    said = {finding.message for finding in findings}
    notes = tuple(note for note in (*inventory.source.notes, *split_notes) if note not in said)
    return Report(inventory.source.name, counts, facts, tuple(sort_findings(findings)), notes)


def check_images(
    source: Source, progress: OnProgress = no_progress, *, near_copies: bool = True
) -> tuple[Finding, ...]:
    """Read every image of ``source`` and return the findings, the most harmful first.

    Unlike :func:`examine`, this takes the splits as they are, as a run has them, and looks at no other files.
    """
    examined = _examine_images(source, progress)
    findings = [*check_files(examined), *check_names(source), *check_classes(source.classes, examined)]
    findings += check_copies(examined, _near_duplicates(examined) if near_copies else ())
    return tuple(sort_findings(findings))


def check_digests(source: Source, digests: Mapping[str, Sequence[bytes]]) -> tuple[Finding, ...]:
    """Return the findings that need no image to be read: class sizes, names, and copies of files.

    Args:
        digests: per split, the digest of each image's file; empty for images that are no files.
    """
    examined = [
        Examined(
            ImageFacts(split.name(index), digest=digest), name, source.classes[int(split.targets[index])]
        )
        for name, split in source.splits.items()
        for index, digest in enumerate(digests[name])
    ]
    findings = [*check_names(source), *check_classes(source.classes, examined), *check_copies(examined, ())]
    return tuple(sort_findings(findings))


def _examine_images(source: Source, progress: OnProgress) -> list[Examined]:
    total = sum(map(len, source.splits.values()))
    examined: list[Examined] = []
    for name, split in source.splits.items():
        for facts, target in zip(read_all_facts(split.images), split.targets, strict=True):
            examined.append(Examined(facts, name, source.classes[int(target)]))
            progress(len(examined), total)
    return examined


def _near_duplicates(examined: list[Examined]) -> list[NearDuplicate]:
    """Find near-duplicates, by their places in ``examined``."""
    readable = [index for index, each in enumerate(examined) if not each.facts.fault]
    pairs = find_near_duplicates([examined[index].facts for index in readable])
    return [NearDuplicate(readable[pair.first], readable[pair.second], pair.mirrored) for pair in pairs]


def _check_splits(source: Source, examined: list[Examined]) -> tuple[list[Finding], tuple[str, ...]]:
    """Check that the readable images suffice for all splits; also return the notes on holding out."""
    splits, start = {}, 0
    for name, split in source.splits.items():
        part = examined[start : start + len(split)]
        splits[name] = split.subset([index for index, each in enumerate(part) if not each.facts.fault])
        start += len(split)
    try:
        held_out = hold_out_splits(
            Source(source.name, source.classes, splits, root=source.root),
            # The defaults of a recipe.
            val_fraction=default_of(DataSection, "val_fraction"),
            test_fraction=default_of(DataSection, "test_fraction"),
            seed=0,
        )
    except DataError as error:
        return [Finding("too-few", (), str(error))], ()
    return [], held_out.notes


def _facts(examined: list[Examined]) -> dict[str, Any]:
    readable = [each.facts for each in examined if not each.facts.fault]
    facts: dict[str, Any] = {"images": len(examined), "readable": len(readable)}
    if not readable:
        return facts
    sizes = np.asarray([image.size for image in readable], dtype=np.float64)
    aspects = sizes[:, 0] / sizes[:, 1]
    for name, values in (("width", sizes[:, 0]), ("height", sizes[:, 1]), ("aspect", aspects)):
        spread = (values.min(), np.median(values), values.max())
        facts[name] = dict(zip(("min", "median", "max"), (round(float(v), 3) for v in spread), strict=True))
    facts["formats"] = dict(Counter(image.format for image in readable if image.format).most_common())
    for name, count in (
        ("grey_share", sum(image.is_grey for image in readable)),
        ("alpha_share", sum(image.has_alpha for image in readable)),
        ("exif_rotated_share", sum(image.orientation != 1 for image in readable)),
    ):
        facts[name] = round(count / len(readable), 4)
    return facts
