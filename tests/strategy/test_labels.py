"""Doubtful labels: confident learning on out-of-fold predictions."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import DataError
from finetune.strategy.doctor import labels
from finetune.strategy.doctor.labels import (
    confident_joint,
    doubtful_labels,
    nearest_labels,
    out_of_fold,
    standardised,
)
from finetune.strategy.doctor.review_table import COLUMNS

# Five images of class 0, four of class 1. The means of their own probabilities, which are the thresholds:
# (0.9 + 0.8 + 0.7 + 0.1 + 0.5) / 5 = 0.6, and (0.9 + 0.8 + 0.2 + 0.1) / 4 = 0.5.
PROBABILITIES = np.array(
    [
        [0.9, 0.1],
        [0.8, 0.2],
        [0.7, 0.3],
        [0.1, 0.9],
        [0.5, 0.5],
        [0.1, 0.9],
        [0.2, 0.8],
        [0.8, 0.2],
        [0.9, 0.1],
    ]
)
TARGETS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])


def clouds(per_class: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes that lie apart, and their targets."""
    draw = np.random.default_rng(seed)
    centres = 5 * np.eye(3, 8)
    targets = np.repeat(np.arange(3), per_class)
    return (centres[targets] + draw.normal(size=(3 * per_class, 8))).astype(np.float32), targets


def test_the_confident_joint_of_a_hand_computed_example() -> None:
    # Image 4 has 0.5 of class 1, which is at the threshold, and less than 0.6 of class 0.
    assert confident_joint(PROBABILITIES, TARGETS).tolist() == [[3, 2], [2, 2]]


def test_the_most_doubtful_comes_first() -> None:
    found = doubtful_labels(PROBABILITIES, TARGETS)
    assert [each.index for each in found] == [3, 8, 7, 4]
    first = found[0]
    assert (first.label, first.suggested, first.probability, first.suggested_probability) == (0, 1, 0.1, 0.9)
    assert all(each.is_sure for each in found)


def test_an_image_in_another_class_is_doubtful_without_being_sure() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])
    # 0.6 of class 1 is below the mean of its images, 0.85.
    found = doubtful_labels(probabilities, np.array([0, 0, 1, 1]))
    assert [(each.index, each.suggested, each.is_sure) for each in found] == [(1, 1, False)]


def test_swapped_labels_are_found_first() -> None:
    features, targets = clouds(40)
    swapped = np.random.default_rng(1).choice(len(targets), 6, replace=False)
    given = targets.copy()
    given[swapped] = (targets[swapped] + 1) % 3
    found = doubtful_labels(out_of_fold(features, given, 3, seed=0), given)
    assert {each.index for each in found[:6]} == set(swapped.tolist())
    assert all(each.suggested == targets[each.index] for each in found[:6])
    # A control: with the right labels there is nothing to find.
    assert len(doubtful_labels(out_of_fold(features, targets, 3, seed=0), targets)) <= 2


def test_many_images_take_one_division(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = clouds(20)
    usual = out_of_fold(features, targets, 3, seed=0)
    monkeypatch.setattr(labels, "LARGE", 0)
    large = out_of_fold(features, targets, 3, seed=0)
    assert not np.array_equal(large, usual)
    assert (large.argmax(1) == targets).mean() > 0.95


def test_the_same_seed_gives_the_same_probabilities() -> None:
    features, targets = clouds(10)
    first = out_of_fold(features, targets, 3, seed=4)
    assert np.array_equal(first, out_of_fold(features, targets, 3, seed=4))
    assert not np.array_equal(first, out_of_fold(features, targets, 3, seed=5))
    assert np.allclose(first.sum(1), 1)


def test_an_image_is_predicted_without_its_group() -> None:
    # Each group is a point far from all others, with a label that nothing else tells.
    draw = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 4)
    given = (groups % 2).astype(np.int64)
    features = (20 * draw.normal(size=(12, 30))[groups] + draw.normal(size=(48, 30))).astype(np.float32)
    alone = out_of_fold(features, given, 2, seed=0)
    together = out_of_fold(features, given, 2, seed=0, groups=groups)
    own = np.arange(48)
    assert alone[own, given].mean() > 0.9
    assert together[own, given].mean() < 0.7


def test_nearest_labels_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import NearestNeighbors

    features, targets = clouds(12)
    features = standardised(features)
    assert np.allclose(features.mean(0), 0, atol=1e-6)
    assert np.allclose(features.std(0), 1, atol=1e-5)
    distances, near = NearestNeighbors(n_neighbors=11, metric="cosine").fit(features).kneighbors(features)
    weights = np.exp(10 * (1 - distances[:, 1:]))
    expected = np.stack([(weights * (targets[near[:, 1:]] == c)).sum(1) for c in range(3)], axis=1)
    expected /= expected.sum(1, keepdims=True)
    assert np.allclose(nearest_labels(features, targets, 3), expected, atol=1e-4)
    monkeypatch.setattr(labels, "CHUNK", 5)
    assert np.allclose(nearest_labels(features, targets, 3), expected, atol=1e-4)
    # Copies of an image say nothing about each other.
    twice, both = np.concatenate([features, features]), np.concatenate([targets, (targets + 1) % 3])
    found = nearest_labels(twice, both, 3, np.tile(np.arange(36), 2))
    assert np.allclose(found[:36], found[36:], atol=1e-6)


def test_a_class_of_one_image_has_no_doubtful_label() -> None:
    features, targets = clouds(10)
    features = np.concatenate([features, features[:1]])
    targets = np.append(targets, 4)
    probabilities = out_of_fold(features, targets, 5, seed=0)
    assert probabilities.shape == (31, 5)
    assert probabilities[30].tolist() == [0, 0, 0, 0, 1]
    assert (probabilities[:30, 3:] == 0).all()
    assert 30 not in {each.index for each in doubtful_labels(probabilities, targets)}


def test_too_few_images_are_refused() -> None:
    features, _ = clouds(1)
    with pytest.raises(DataError, match="two or more images"):
        out_of_fold(features, np.arange(3), 3, seed=0)
    with pytest.raises(DataError, match="two or more images"):
        out_of_fold(features, np.zeros(3, np.int64), 1, seed=0)


@pytest.fixture
def with_a_wrong_label(shapes: Path, tmp_path: Path) -> Path:
    root = tmp_path / "shapes"
    shutil.copytree(shapes, root)
    (root / "train" / "disc" / "disc_03.png").rename(root / "train" / "square" / "moved.png")
    (root / "val" / "disc" / "bad.png").write_text("no image")
    return root


def test_the_doctor_lists_doubtful_labels_when_asked(
    with_a_wrong_label: Path, cli: Callable[..., Any]
) -> None:
    root = with_a_wrong_label
    words = ("doctor", root, "--no-near-copies", "--set", "data.image_size=64")
    ended = cli(*words, "--labels", "--json")
    assert ended.code == 0, ended.err
    doubtful = [each for each in json.loads(ended.out)["findings"] if each["kind"] == "doubtful-label"]
    assert doubtful[0]["files"] == [str(root / "train" / "square" / "moved.png")]
    assert doubtful[0]["message"].startswith("labelled 'square', looks like 'disc' (")
    first = doubtful[0]
    assert (first["label"], first["suggested"]) == ("square", "disc")
    assert 0 <= first["probability"] < first["suggested_probability"] <= 1
    # The second time, the features are in the cache.
    table, sheet = root.parent / "doubts.csv", root.parent / "doubts.html"
    again = cli(*words, "--labels", "--csv", table, "--sheet", sheet)
    assert "look like another class" in again.out
    assert ("features: 33 images" in ended.err, "features: 33 images" in again.err) == (True, False)
    assert "doubtful-label" not in cli(*words, "--json").out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == [
        str(Path(each["files"][0]).relative_to(root)) for each in doubtful
    ]
    assert {row["new_label"] for row in rows} == {""}
    page = sheet.read_text()
    assert page.count('<article class="card">') == len(rows)
    assert "<bdi>train/square/moved.png</bdi>" in page
    assert "finetune relabel" in page
    # A table that a person may have gone over is not replaced.
    assert cli(*words, "--labels", "--csv", table).code == 2
    assert cli("doctor", root, "--csv", root.parent / "new.csv").code == 2


def test_doubtful_labels_are_not_a_reason_for_strict(
    with_a_wrong_label: Path, cli: Callable[..., Any]
) -> None:
    words = ("doctor", with_a_wrong_label, "--no-near-copies", "--set", "data.image_size=64", "--strict")
    without, with_labels = cli(*words), cli(*words, "--labels")
    assert (without.code, with_labels.code) == (1, 1)
    assert without.err.splitlines()[-1] == with_labels.err.splitlines()[-1]


def test_a_backbone_goes_with_labels(shapes: Path, cli: Callable[..., Any]) -> None:
    assert cli("doctor", shapes, "--backbone", "resnet18").code == 2
    ended = cli("doctor", shapes, "--labels", "--backbone", "resnet81")
    assert (ended.code, "resnet18" in ended.err) == (2, True)
