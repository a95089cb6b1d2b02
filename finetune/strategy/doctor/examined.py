"""The images of a source, each with its facts, split and class."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.strategy.doctor.image_facts import ImageFacts


@dataclass(frozen=True)
class Examined:
    """An image with its split (train, val, test or all) and its class."""

    facts: ImageFacts
    split: str
    label: str


def class_counts(classes: Sequence[str], examined: Sequence[Examined]) -> dict[str, dict[str, int]]:
    """Count the readable images of each class in each split."""
    counts = {split: dict.fromkeys(classes, 0) for split in dict.fromkeys(each.split for each in examined)}
    for each in examined:
        if not each.facts.fault:
            counts[each.split][each.label] += 1
    return counts
