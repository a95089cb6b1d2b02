"""Checks for images that occur more than once: duplicates, leakage and contradictions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from finetune.data.dataset import quoted
from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.image_facts import Examined
from finetune.strategy.doctor.near_duplicates import NearDuplicate


def check_copies(examined: Sequence[Examined], near: Iterable[NearDuplicate]) -> list[Finding]:
    """Find images that occur more than once; ``near`` refers to places in ``examined``."""
    first: dict[bytes, int] = {}
    pairs = []
    for index, each in enumerate(examined):
        # All empty files are equal, and have a finding of their own.
        if each.facts.digest and not (each.facts.fault or "").startswith("empty"):
            pairs.append((first.setdefault(each.facts.digest, index), index))
    mirrored = set()
    for pair in near:
        pairs.append((pair.first, pair.second))
        if pair.mirrored:
            mirrored |= {pair.first, pair.second}
    findings = []
    for members in _connected(len(examined), pairs):
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


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the groups of two and more of 0 .. count - 1 that ``pairs`` connect, each in order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if all(one == other for one, other in pairs):
        return []
    graph = coo_array((np.ones(len(pairs)), np.asarray(pairs).T), shape=(count, count))
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(connected_components(graph, directed=False)[1].tolist()):
        members[group].append(index)
    return [each for each in members.values() if len(each) > 1]
