"""Checks of files, class names, and the sizes of classes and splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from finetune.data.dataset import Source, quoted
from finetune.data.sources.names.class_names import similar_class_notes
from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.image_facts import Examined, ImageFacts, class_counts
from finetune.strategy.doctor.traits import check_traits

T = TypeVar("T")

# Formats that share a file extension.
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
# If the largest class has this many times the images of the smallest, correcting that gains points of
# balanced accuracy (docs/measured/imbalance.md).
IMBALANCE = 5.0
# The least images per class for training, and the least for evaluation (with 30, the interval of 80 % is 28
# points wide).
LEAST_OF_CLASS = 5
LEAST_TO_EVALUATE = 30


def check_files(examined: Sequence[Examined]) -> list[Finding]:
    """Find files that cannot be read, have the wrong extension, are read in part, or stand out."""
    findings = []
    for (kind, reason), names in _grouped(
        (_fault(each.facts), each.facts.name) for each in examined if each.facts.fault
    ):
        findings.append(Finding(kind, names, reason))
    readable = [each.facts for each in examined if not each.facts.fault]
    wrong = ((claim, each.name) for each in readable if (claim := _wrong_extension(each)) is not None)
    findings.extend(Finding("mislabelled", names, message) for message, names in _grouped(wrong))
    more = ((left.message, each.name) for each in readable for left in each.unread)
    for message, names in _grouped(more):
        share = f"{len(names):,} of {len(readable):,} images"
        findings.append(Finding("partly-read", names, f"{message} ({share})"))
    findings += check_traits(readable)
    return findings


def check_classes(classes: Sequence[str], examined: Sequence[Examined]) -> list[Finding]:
    """Find classes and splits that are missing, too small or unbalanced, counting readable images."""
    findings = []
    counts = class_counts(classes, examined)
    leading = "train" if "train" in counts else "all"
    for split in ("train", "val", "test"):
        if split not in counts:
            continue
        absent = [name for name in classes if not counts[split][name]]
        if absent:
            what = "cannot be learned" if split == "train" else f"are not evaluated on {split}"
            message = f"{split} has no images of {quoted(absent)}, which {what}"
            findings.append(Finding("missing-class", (), message))
    own = counts.get(leading, {})
    present = {name: count for name, count in own.items() if count}
    if scarce := [f"{name} ({count})" for name, count in present.items() if count < LEAST_OF_CLASS]:
        message = f"classes with fewer than {LEAST_OF_CLASS} images to learn from: {quoted(scarce)}"
        findings.append(Finding("too-few", (), message))
    for split in ("val", "test"):
        n = sum(counts.get(split, {}).values())
        if 0 < n < LEAST_TO_EVALUATE:
            points = round(100 * 2 * 1.96 * 0.4 / np.sqrt(n))
            message = f"{split} has {n} images: the interval of an accuracy of 80 % is {points} points wide"
            findings.append(Finding("too-few", (), message))
    if present:
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        if present[most] >= IMBALANCE * present[least]:
            times = present[most] / present[least]
            message = f"{leading} has {present[most]} images of {quoted([most])} and {present[least]} of "
            message += f"{quoted([least])}: {times:.1f} times as many (`finetune advise` measures whether "
            message += "`train.logit_adjust` or `train.class_weights` helps)"
            findings.append(Finding("imbalance", (), message))
    return findings


def check_names(source: Source) -> list[Finding]:
    """Find classes with similar names, which may be one class, misspelt."""
    leading = source.splits.get("all") or source.splits.get("train")
    if leading is None:
        return []
    counts = leading.class_counts(len(source.classes)).tolist()
    named = dict(zip(source.classes, counts, strict=True))
    return [Finding("lookalike-classes", (), note) for note in similar_class_notes(source.name, named)]


def _fault(facts: ImageFacts) -> tuple[str, str]:
    reason = facts.fault or ""
    if reason.startswith("empty file"):
        return "empty-file", reason
    return ("truncated" if reason.startswith("truncated") else "unreadable"), reason


def _wrong_extension(facts: ImageFacts) -> str | None:
    """Describe a file extension that contradicts the content; None if there is none."""
    extension = Path(facts.name).suffix.lower()
    named = Image.registered_extensions().get(extension)
    if facts.format is None or named is None:
        return None
    if SAME_FORMAT.get(named, named) == SAME_FORMAT.get(facts.format, facts.format):
        return None
    return f"the extension is {extension}, but the content is {facts.format}; it is read as {facts.format}"


def _grouped(pairs: Iterable[tuple[T, str]]) -> list[tuple[T, tuple[str, ...]]]:
    groups: dict[T, list[str]] = defaultdict(list)
    for group, name in pairs:
        groups[group].append(name)
    return [(group, tuple(names)) for group, names in groups.items()]
