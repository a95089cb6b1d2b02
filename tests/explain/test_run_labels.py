"""Doubtful labels of a run's images."""

from pathlib import Path

import numpy as np
import pytest

from finetune.data.dataset import Split
from finetune.data.images import FileImages, JoinedImages
from finetune.explain.features import run_labels
from finetune.explain.features.run_labels import doubtful_labels_of_run
from finetune.recipe.schema import Recipe
from finetune.strategy.doctor.labels import DoubtfulLabel
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained, load_trained


def with_a_swapped_label(run: Path, tmp_path: Path) -> tuple[Trained, Split, int]:
    """The training images after one that cannot be read; the label of image 4 is wrong."""
    trained = load_trained(run)
    (tmp_path / "bad.png").touch()
    train = images_to_evaluate(trained, "train").images
    targets = np.append(0, train.targets)
    targets[4] = 1 - targets[4]
    images = JoinedImages([FileImages([tmp_path / "bad.png"]), train.images])
    data = trained.recipe.data.model_copy(update={"on_bad_image": "skip"})
    object.__setattr__(trained, "recipe", trained.recipe.model_copy(update={"data": data}))
    return trained, Split(images, targets), 4


def test_without_source_weights_the_trained_network_is_asked(run: Path, tmp_path: Path) -> None:
    trained, images, swapped = with_a_swapped_label(run, tmp_path)
    found = doubtful_labels_of_run(trained, images)
    assert swapped in [each.index for each in found[:8]]
    assert all(each.label == images.targets[each.index] for each in found)


def test_the_source_network_is_asked_at_its_own_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, images, _ = with_a_swapped_label(run, tmp_path)
    model = trained.recipe.model.model_copy(update={"weights": "default"})
    object.__setattr__(trained, "recipe", trained.recipe.model_copy(update={"model": model}))
    asked: list[Recipe] = []

    def ask(recipe: Recipe, *_: object) -> list[DoubtfulLabel]:
        asked.append(recipe)
        return []

    monkeypatch.setattr(run_labels, "doubtful_labels_by", ask)
    assert doubtful_labels_of_run(trained, images) == []
    assert (trained.recipe.data.image_size, asked[0].data.image_size) == (16, "auto")
