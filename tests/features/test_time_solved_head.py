"""``scripts/time-solved-head`` runs, and both ways give the same head."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from finetune.data.holdout.folds import inner_folds


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("time-solved-head")


@pytest.mark.parametrize("classes", [2, 4])
def test_both_ways_have_the_same_choice_and_the_same_head(classes: int, script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(160) % classes
    features = rng.normal(size=(160, 12)) + 0.3 * rng.normal(size=(classes, 12))[targets]
    folds = inner_folds(targets, 0)
    one, other = (way(features.astype(np.float32), targets, classes, folds) for way in script.WAYS.values())
    assert one.decay == pytest.approx(other.decay)
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-3 * np.abs(one.weight).max())


def test_one_line_per_way_is_printed(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3, 3
    monkeypatch.setattr(script, "read", lambda *_: rows)
    assert script.main(["images", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "30 images, 5 features, 3 classes; 1 threads" in shown
    for name in script.WAYS:
        assert f"| {name} | " in shown


def test_its_features_are_those_of_the_training_images(
    script: ModuleType, shapes: Path, tmp_path: Path
) -> None:
    features, targets, classes = script.read(str(shapes), "efficientnet_lite0", 1)
    assert features.shape == (len(targets), 1280)
    assert classes == 2


def test_a_missing_folder_is_an_error(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path / "nothing")]) == 2
    assert "error: " in capsys.readouterr().err
