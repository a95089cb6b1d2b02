"""The groups of images on which several runs are compared: groups belong to the images, not to a run."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.evaluate import Evaluation


def join_groups(found: Sequence[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    """Join the groups that several runs give the same N images: (N,) each, or None where a run has none.

    Two images are in one group if any run says so, or if a chain of such pairs connects them. So no two
    groups of the result share what any run calls a group. None if no run has groups.
    """
    known = [np.unique(each, return_inverse=True)[1] for each in found if each is not None]
    if not known:
        return None
    joined = known[0]
    for each in known[1:]:
        joined = _connected(joined, each)
    return np.asarray(joined, dtype=np.int64)


def with_groups(evaluation: Evaluation, groups: NDArray[np.int64]) -> Evaluation:
    """Return an evaluation with its metrics by ``groups``, (N,) in the order of its rows."""
    collected = dataclasses.replace(evaluation.collected, groups=groups)
    metrics = collected.metrics(evaluation.metrics.classes)
    return dataclasses.replace(evaluation, collected=collected, metrics=metrics)


def same_groups(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> bool:
    """Whether two numberings put the same images together."""
    if one is None or other is None:
        return one is other
    counts = [len(np.unique(each)) for each in (one, other)]
    pairs = len(np.unique(np.stack([one, other], axis=1), axis=0))
    return counts == [pairs, pairs]


def _connected(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The parts of the graph whose nodes are the groups of both, and whose edges are the images."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = int(one.max()) + int(other.max()) + 2
    edges = (np.ones(len(one)), (one, other + int(one.max()) + 1))
    _, part = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)
    return np.asarray(part[one], dtype=np.int64)
