"""None of these: scores of nearest neighbours, and a threshold that keeps 95 % of val."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from finetune.decision.decision import Decision
from finetune.decision.novelty import (
    Novelty,
    choose_threshold,
    nearest_scores,
    read_novelty,
    unit_rows,
)
from finetune.deploy.output_network import NearestScores

DRAW = np.random.default_rng(0)


def drawn(n: int, centre: float, dimensions: int = 16) -> np.ndarray:
    """Features around one direction, of any length."""
    around = np.zeros(dimensions)
    around[: dimensions // 2], around[dimensions // 2 :] = centre, 1
    return ((around + DRAW.normal(0, 0.4, (n, dimensions))) * DRAW.uniform(0.1, 9, (n, 1))).astype(np.float32)


@pytest.mark.parametrize("neighbours", [1, 5, 40])
def test_scores_are_distances_to_the_nearest_neighbours(neighbours: int) -> None:
    features, reference = drawn(30, 1.0), unit_rows(drawn(40, 1.0))
    theirs = NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(reference)
    expected = theirs.kneighbors(features)[0][:, -1]
    found = nearest_scores(features, reference, neighbours)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found) > 0.01  # the control


def test_torch_computes_the_same_scores() -> None:
    """Also from features in half precision, as the file of a checkpoint holds them."""
    features, reference = drawn(30, 1.0), unit_rows(drawn(40, 1.0)).astype(np.float16)
    expected = nearest_scores(features, reference, 5)
    scorer = NearestScores(torch.from_numpy(reference), 5)
    np.testing.assert_allclose(scorer(torch.from_numpy(features)).numpy(), expected, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = scorer(torch.from_numpy(features))
    np.testing.assert_allclose(half.numpy(), expected, atol=1e-6)


def test_half_precision_hardly_changes_scores() -> None:
    features, reference = drawn(30, 1.0), unit_rows(drawn(40, 1.0))
    whole, half = (nearest_scores(features, each, 5) for each in (reference, reference.astype(np.float16)))
    np.testing.assert_allclose(half, whole, atol=2e-4)


def test_an_image_of_the_reference_has_score_0_and_no_features_give_1() -> None:
    features = drawn(3, 1.0)
    reference = unit_rows(features)
    np.testing.assert_allclose(nearest_scores(5 * features, reference, 1), 0, atol=1e-6)
    assert nearest_scores(np.zeros((1, 16), dtype=np.float32), reference, 1) == 1


@pytest.mark.parametrize("n", [19, 60, 333])
def test_the_threshold_keeps_95_percent_of_new_images_on_average(n: int) -> None:
    """Over many draws of val and of a new image, about 5 % of the new ones are marked, and never more."""
    draw = np.random.default_rng(1)
    thresholds = np.array([choose_threshold(draw.exponential(size=n)) for _ in range(2000)])
    marked = float(np.mean(np.exp(-thresholds)))  # the chance of an exponential above it
    exact = 1 - math.ceil((n + 1) * 0.95) / (n + 1)
    assert marked <= 0.05
    assert marked == pytest.approx(exact, abs=0.006)


def test_a_threshold_lies_above_the_score_that_it_keeps() -> None:
    scores = np.arange(1, 101) / 100
    threshold = choose_threshold(scores)
    assert threshold is not None
    assert 0.96 < threshold < 0.97
    assert (scores > threshold).sum() == 4
    highest = choose_threshold(scores[:19])
    assert highest is not None
    assert 0.19 < highest < 0.2
    # Equal scores are kept together.
    assert choose_threshold(np.zeros(50)) == 0


def test_a_val_of_fewer_than_19_images_has_no_threshold() -> None:
    scores = np.linspace(0.1, 0.2, 18, dtype=np.float32)
    novelty = Novelty.of(scores, 3)
    assert (novelty.threshold, novelty.n, novelty.images, novelty.neighbours) == (None, 18, 3, 3)
    assert novelty.is_novel(9.0) is None


def test_strangers_are_found_and_own_images_are_kept() -> None:
    reference = unit_rows(drawn(200, 1.0))
    val, own, strange = (nearest_scores(drawn(400, each), reference, 5) for each in (1.0, 1.0, -1.0))
    novelty = Novelty.of(val, 200)
    truth = np.repeat([0, 1], 400)
    assert roc_auc_score(truth, np.concatenate([own, strange])) > 0.99
    assert np.mean([novelty.is_novel(float(each)) for each in own]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([novelty.is_novel(float(each)) for each in strange]) > 0.95


def test_a_decision_keeps_it() -> None:
    for novelty in (Novelty(0.25, 40, 500, 5), Novelty(None, 3, 2, 2), None):
        kept = json.loads(json.dumps(Decision(novelty=novelty).to_dict()))
        assert Decision.from_dict(kept).novelty == novelty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": "0.3"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"neighbours": 0}, "neighbours"),
        ({"neighbours": 501}, "neighbours"),
        ({"images": 2.5}, "whole numbers"),
        ({"n": -1}, "n at least 0"),
        ({"n": True}, "whole numbers"),
    ],
)
def test_a_damaged_entry_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_novelty(Novelty(0.25, 40, 500, 5).to_dict() | change)
