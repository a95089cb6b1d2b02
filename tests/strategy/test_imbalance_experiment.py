"""`scripts/imbalance-experiment` on drawn features: which rows stay, what is measured, and the table."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from finetune.strategy.probing.frozen_features import FeatureRows


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("imbalance-experiment")


def drawn(counts: tuple[int, int], seed: int) -> FeatureRows:
    draw = np.random.default_rng(seed)
    targets = np.repeat([0, 1], counts)
    features = draw.normal(size=(len(targets), 6)) + 1.5 * np.eye(2, 6)[targets]
    return FeatureRows(features.astype(np.float32), targets.astype(np.int64), None)


def test_half_of_the_classes_keep_a_share(script: ModuleType) -> None:
    targets = np.repeat(np.arange(4), [10, 20, 30, 40])
    counts = np.bincount(targets[script.uneven_rows(targets, 0.1, 3)])
    whole, kept = np.array([10, 20, 30, 40]), np.array([2, 2, 3, 4])
    assert sorted(counts == whole) == [False, False, True, True]
    assert ((counts == whole) | (counts == kept)).all()
    assert np.bincount(targets[script.uneven_rows(targets, 1.0, 3)]).tolist() == whole.tolist()


def test_the_table_has_the_gain_of_what_the_rule_chooses(script: ModuleType) -> None:
    results = [
        {"set": "drawn", "keep": 0.1, "seed": seed}
        | script.measured(drawn((80, 8), seed), drawn((60, 60), 9 + seed), 2, seed)
        for seed in range(2)
    ]
    assert [each["ratio"] for each in results] == [10.0, 10.0]
    gains = [
        each["test"][script.chosen_by_rule(each)]["balanced_accuracy"]
        - each["test"]["none"]["balanced_accuracy"]
        for each in results
    ]
    assert np.mean(gains) > 0.05
    line = next(each for each in script.table(results).splitlines() if each.startswith("| drawn |"))
    assert f"| {100 * np.mean(gains):+.1f} [" in line
    assert "Nothing was measured" in script.table([])


def test_the_focal_head_is_the_solved_one_without_the_exponent(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = drawn((60, 20), 0)
    head = script.solve(script.LinearProblem(rows.features, rows.targets, 2), 0.05)
    focal = script.focal_head(rows, head)
    monkeypatch.setattr(script, "GAMMA", 0.0)
    plain = script.focal_head(rows, head)
    np.testing.assert_allclose(plain.logits(rows.features), head.logits(rows.features), atol=1e-4)
    assert np.abs(focal.logits(rows.features) - head.logits(rows.features)).max() > 0.1
