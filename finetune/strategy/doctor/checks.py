"""Looks -> findings: files that are not as they should be, copies, classes and splits that do not fit."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from finetune.data.dataset import Source, quoted
from finetune.data.sources.names.class_checks import similar_class_notes
from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.image_facts import ImageFacts
from finetune.strategy.doctor.near_duplicates import Twin
from finetune.strategy.doctor.traits import check_oddities

T = TypeVar("T")

# Formats that share extensions, or are read by one decoder under two names.
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
# The largest class, in times the smallest, from which on a network hardly hears of the latter.
IMBALANCE = 5.0
# Images of a class to learn from, and images to judge by (at 80 % the interval of 30 is 28 points wide).
LEAST_OF_CLASS = 5
LEAST_TO_JUDGE = 30


@dataclass(frozen=True)
class Seen:
    """An image as it was seen, with its split (train, val, test or all) and its class."""

    look: ImageFacts
    split: str
    label: str


def check_files(seen: Sequence[Seen]) -> list[Finding]:
    """Findings on single files: what cannot be read, what is not what its name says, what stands out."""
    findings = []
    for (kind, reason), names in _grouped(
        (_fault(each.look), each.look.name) for each in seen if each.look.fault
    ):
        findings.append(Finding(kind, names, reason))
    looks = [each.look for each in seen if not each.look.fault]
    wrong = ((claim, each.name) for each in looks if (claim := _wrong_extension(each)) is not None)
    findings.extend(Finding("mislabelled", names, message) for message, names in _grouped(wrong))
    more = ((left.message, each.name) for each in looks for left in each.unread)
    for message, names in _grouped(more):
        findings.append(Finding("partly-read", names, f"{message} ({len(names):,} of {len(looks):,} images)"))
    findings += check_oddities(looks)
    return findings


def check_copies(seen: Sequence[Seen], twins: Iterable[Twin]) -> list[Finding]:
    """Findings on images that are there more than once; ``twins`` counts in ``seen``."""
    groups = _Groups(len(seen))
    first: dict[bytes, int] = {}
    for index, each in enumerate(seen):
        # Empty files are all the same, and told of already.
        if each.look.digest and not (each.look.fault or "").startswith("empty"):
            groups.join(first.setdefault(each.look.digest, index), index)
    mirrored = set()
    for twin in twins:
        groups.join(twin.first, twin.second)
        if twin.mirrored:
            mirrored |= {twin.first, twin.second}
    findings = []
    for members in groups.larger_than_one():
        images = [seen[index] for index in members]
        names = tuple(each.look.name for each in images)
        exact = len({each.look.digest for each in images}) == 1
        how = "byte for byte the same" if exact else "nearly the same"
        if not exact and mirrored & set(members):
            how += ", mirrored"
        splits, labels = sorted({each.split for each in images}), sorted({each.label for each in images})
        if len(splits) > 1:
            findings.append(Finding("leakage", names, f"{how}, in {' and '.join(splits)}"))
        if len(labels) > 1:
            findings.append(Finding("contradiction", names, f"{how}, in the classes {quoted(labels)}"))
        if len(splits) == len(labels) == 1:
            findings.append(Finding("duplicate" if exact else "near-duplicate", names, how))
    return findings


def check_classes(classes: Sequence[str], seen: Sequence[Seen]) -> list[Finding]:
    """Findings on classes and splits, by the images that can be read."""
    findings = []
    counts = class_counts(classes, seen)
    leading = "train" if "train" in counts else "all"
    for split in ("train", "val", "test"):
        if split not in counts:
            continue
        absent = [name for name in classes if not counts[split][name]]
        if absent:
            what = "cannot be learned" if split == "train" else f"are not judged on {split}"
            message = f"{split} has no images of {quoted(absent)}, which therefore {what}"
            findings.append(Finding("missing-class", (), message))
    own = counts.get(leading, {})
    present = {name: count for name, count in own.items() if count}
    if scarce := [f"{name} ({count})" for name, count in present.items() if count < LEAST_OF_CLASS]:
        message = f"fewer than {LEAST_OF_CLASS} images to learn from: {quoted(scarce)}"
        findings.append(Finding("too-few", (), message))
    for split in ("val", "test"):
        n = sum(counts.get(split, {}).values())
        if 0 < n < LEAST_TO_JUDGE:
            points = round(100 * 2 * 1.96 * 0.4 / np.sqrt(n))
            message = f"{split} has {n} images: an accuracy of 80 % has an interval {points} points wide"
            findings.append(Finding("too-few", (), message))
    if present:
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        if present[most] >= IMBALANCE * present[least]:
            times = present[most] / present[least]
            message = f"{leading} has {present[most]} images of {quoted([most])} and {present[least]} of "
            message += (
                f"{quoted([least])}: {times:.1f} times as many (train.sampler: balanced evens that out)"
            )
            findings.append(Finding("imbalance", (), message))
    return findings


def check_names(source: Source) -> list[Finding]:
    """Findings on classes that may be one class, misspelt: what the notes of reading say of them."""
    leading = source.splits.get("all") or source.splits.get("train")
    if leading is None:
        return []
    counts = leading.class_counts(len(source.classes)).tolist()
    named = dict(zip(source.classes, counts, strict=True))
    return [Finding("lookalike-classes", (), note) for note in similar_class_notes(source.name, named)]


def class_counts(classes: Sequence[str], seen: Sequence[Seen]) -> dict[str, dict[str, int]]:
    """Split -> class -> images that can be read."""
    counts = {split: dict.fromkeys(classes, 0) for split in dict.fromkeys(each.split for each in seen)}
    for each in seen:
        if not each.look.fault:
            counts[each.split][each.label] += 1
    return counts


def _fault(look: ImageFacts) -> tuple[str, str]:
    reason = look.fault or ""
    if reason.startswith("empty file"):
        return "empty-file", reason
    return ("truncated" if reason.startswith("truncated") else "unreadable"), reason


def _wrong_extension(look: ImageFacts) -> str | None:
    """What is wrong about the name of an image, if anything is."""
    extension = Path(look.name).suffix.lower()
    named = Image.registered_extensions().get(extension)
    if look.format is None or named is None:
        return None
    if SAME_FORMAT.get(named, named) == SAME_FORMAT.get(look.format, look.format):
        return None
    return f"named {extension}, but contains {look.format}; it is read as what it contains"


def _grouped(pairs: Iterable[tuple[T, str]]) -> list[tuple[T, tuple[str, ...]]]:
    groups: dict[T, list[str]] = defaultdict(list)
    for group, name in pairs:
        groups[group].append(name)
    return [(group, tuple(names)) for group, names in groups.items()]


class _Groups:
    """Disjoint sets of 0 .. count - 1."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, one: int, other: int) -> None:
        self._parent[self._root(other)] = self._root(one)

    def larger_than_one(self) -> list[list[int]]:
        members: dict[int, list[int]] = defaultdict(list)
        for index in range(len(self._parent)):
            members[self._root(index)].append(index)
        return sorted(each for each in members.values() if len(each) > 1)

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index
