"""Comparisons by groups: which groups count, with results that are drawn instead of networks."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.evaluation.paired import paired
from finetune.strategy.experiments.compare import ComparedRun, compare
from finetune.strategy.experiments.shared_groups import join_groups, same_groups
from finetune.training.curves import History

N = 120
GROUPS = np.arange(N) // 6


def drawn_run(
    name: str, seed: int, groups: NDArray[np.int64] | None, order: Any = slice(None)
) -> ComparedRun:
    """A run that is right on about 80 % of images, which are in ``order``."""
    rng = np.random.default_rng(seed)
    targets = np.arange(N) % 2
    predicted = np.where(rng.random(N) < 0.8, targets, 1 - targets)
    logits = np.eye(2, dtype=np.float32)[predicted][order]
    own = None if groups is None else groups[order]
    collected = Collected(logits, targets[order], np.arange(N), (), groups=own)
    nothing: Any = None
    evaluation = Evaluation(collected.metrics(("a", "b")), collected, nothing, "test")
    names = tuple(np.array([f"image {number:03}" for number in range(N)])[order])
    return ComparedRun(name, nothing, nothing, evaluation, names, (), History(()), 1.0, 1)


def test_groups_are_joined_over_runs() -> None:
    one, other = np.array([5, 5, 7, 7, 9]), np.array([1, 2, 2, 3, 4])
    joined = join_groups([one, None, other])
    assert joined is not None
    assert same_groups(joined, np.array([0, 0, 0, 0, 1]))
    assert join_groups([None, None]) is None
    again = join_groups([one, np.array([0, 0, 4, 4, 2])])
    assert same_groups(again, one)
    assert not same_groups(one, other)
    assert not same_groups(one, None)
    assert same_groups(None, None)


def test_a_run_without_groups_takes_those_of_the_other() -> None:
    shuffled = np.random.default_rng(9).permutation(N)
    with_them, without = drawn_run("x", 1, GROUPS), drawn_run("y", 2, None, shuffled)
    found = compare([with_them, without])
    expected = compare([with_them, drawn_run("y", 2, GROUPS, shuffled)])
    assert not expected.warnings
    assert "different data.group_by" in found.warnings[0]
    assert (found.groups, found.test) == (20, "sign-flip")
    assert found.pairs == expected.pairs
    assert found.to_dict() == expected.to_dict()
    first, second, pair = found.to_dict()["runs"] + found.to_dict()["pairs"]
    assert first["groups"] == second["groups"] == pair["groups"] == 20
    assert (pair["test"], pair["n"]) == ("sign-flip", N)
    # By images, the same two runs have another interval.
    alone = compare([drawn_run("x", 1, None), without])
    assert (alone.groups, alone.test) == (None, "McNemar")
    assert alone.pairs[0][2].difference == found.pairs[0][2].difference
    assert alone.runs[1].metrics.top1_low == pytest.approx(without.metrics.top1_low)
    assert found.runs[1].metrics.top1_low != without.metrics.top1_low


def test_rows_are_matched_by_content_before_groups_are_counted() -> None:
    shuffled = np.random.default_rng(9).permutation(N)
    first, second = drawn_run("x", 1, GROUPS), drawn_run("y", 2, GROUPS, shuffled)
    one, other = (np.array([each.correct[name] for name in sorted(each.correct)]) for each in (first, second))
    assert compare([first, second]).pairs == ((0, 1, paired(one, other, GROUPS)),)
