"""Checks for images that occur more than once: duplicates, leakage and contradictions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from finetune.data.dataset import quoted
from finetune.strategy.doctor.examined import Examined
from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.near_duplicates import NearDuplicate


def check_copies(examined: Sequence[Examined], near: Iterable[NearDuplicate]) -> list[Finding]:
    """Find images that occur more than once; ``near`` refers to places in ``examined``."""
    groups = _Groups(len(examined))
    first: dict[bytes, int] = {}
    for index, each in enumerate(examined):
        # All empty files are equal, and have a finding of their own.
        if each.facts.digest and not (each.facts.fault or "").startswith("empty"):
            groups.join(first.setdefault(each.facts.digest, index), index)
    mirrored = set()
    for pair in near:
        groups.join(pair.first, pair.second)
        if pair.mirrored:
            mirrored |= {pair.first, pair.second}
    findings = []
    for members in groups.larger_than_one():
        images = [examined[index] for index in members]
        names = tuple(each.facts.name for each in images)
        exact = len({each.facts.digest for each in images}) == 1
        how = "byte-identical" if exact else "nearly identical"
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
