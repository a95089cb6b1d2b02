"""The check of an export accepts rounding, and refuses everything else."""

import dataclasses
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.decision.probabilities import softmax
from finetune.deploy.agreement import IMAGES, check_agreement, check_images, compare_logits
from finetune.deploy.output_network import OutputNetwork
from finetune.deploy.predict import Outputs
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.errors import ExportError
from finetune.training.trained import Trained, load_trained

EXPECTED = np.array([[10.0, 2.0], [-4.0, 5.0], [3.0, 3.001]], dtype=np.float32)


def test_rounding_passes_and_ties_may_break_either_way() -> None:
    found = EXPECTED + np.array([0.004, -0.004], dtype=np.float32)
    assert found[2].argmax() != EXPECTED[2].argmax()
    difference, scale = compare_logits(EXPECTED, found)
    assert scale == 10
    assert difference == pytest.approx(0.004, rel=1e-3)


@pytest.mark.parametrize("shift", [0.0101, -0.02, 1.0])
def test_more_than_a_thousandth_of_the_largest_logit_fails(shift: float) -> None:
    found = EXPECTED.copy()
    found[1, 0] += shift
    with pytest.raises(ExportError, match="does not compute what the model computes"):
        compare_logits(EXPECTED, found)


def test_a_changed_class_fails() -> None:
    with pytest.raises(ExportError, match="for 3 of 3 images"):
        compare_logits(np.array([[1.0, 2.0]] * 3), np.array([[2.0, 1.0]] * 3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_fail_on_both_sides(value: float) -> None:
    broken = EXPECTED.copy()
    broken[0, 0] = value
    for pair in ((broken, EXPECTED), (EXPECTED, broken), (broken, broken)):
        with pytest.raises(ExportError, match="not finite"):
            compare_logits(*pair)


def classifier(trained: Trained) -> TorchClassifier:
    return TorchClassifier(OutputNetwork(trained.module, trained.card, trained.reference), trained.card)


def test_batches_of_one_and_three_are_both_tried(trained: Trained) -> None:
    sizes = []

    class Counting(TorchClassifier):
        def outputs(self, images: np.ndarray) -> Outputs:
            sizes.append(len(images))
            return super().outputs(images)

    model = classifier(trained)
    counting = Counting(OutputNetwork(trained.module, trained.card, trained.reference), trained.card)
    images, source = check_images(trained)
    assert check_agreement(model, counting, images).n == IMAGES
    assert source == "val"
    assert sizes == [1, 3] * (IMAGES // 4)


def test_a_different_card_fails(trained: Trained) -> None:
    model = classifier(trained)
    other = dataclasses.replace(trained.card, classes=("square", "disc"))
    swapped = TorchClassifier(trained.module, other, torch.device("cpu"))
    with pytest.raises(ExportError, match="describes another model"):
        check_agreement(model, swapped, np.zeros((4, 3, 32, 32), dtype=np.float32))


class Altered:
    """A file that claims the card of the run, and computes something else."""

    def __init__(self, trained: Trained, **changes: Any) -> None:
        self.card, self._model, self._changes = trained.card, classifier(trained), changes

    def outputs(self, images: np.ndarray) -> Outputs:
        found = self._model.outputs(images)
        return dataclasses.replace(found, **{name: how(found) for name, how in self._changes.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": lambda found: softmax(found.logits)}, "calibrated probabilities"),
        ({"probabilities": lambda found: softmax(found.logits / 2.51)}, "calibrated probabilities"),
        ({"probabilities": lambda found: None}, "no probabilities"),
        ({"probabilities": lambda found: found.probabilities * math.nan}, "calibrated probabilities"),
        ({"novelty": lambda found: None}, "only one of"),
        ({"novelty": lambda found: found.novelty * 1.01}, "scores of how unlike"),
        ({"novelty": lambda found: found.novelty * math.nan}, "scores of how unlike"),
    ],
)
def test_other_probabilities_and_scores_fail(changes: Any, message: str, trained: Trained) -> None:
    images, _ = check_images(trained)
    check_agreement(classifier(trained), Altered(trained), images)  # the control
    with pytest.raises(ExportError, match=message):
        check_agreement(classifier(trained), Altered(trained, **changes), images)


def test_features_of_other_images_fail(trained: Trained) -> None:
    images, _ = check_images(trained)
    reference = trained.reference
    assert reference is not None
    other = dataclasses.replace(trained, reference=reference.roll(1, 1))
    with pytest.raises(ExportError, match="scores of how unlike"):
        check_agreement(classifier(trained), classifier(other), images)


def test_images_come_from_all_of_val(trained: Trained, shapes: Path) -> None:
    images, source = check_images(trained)
    size = trained.card.preprocessing.image_size
    assert (images.shape, source) == ((IMAGES, 3, size, size), "val")
    assert images.dtype == np.float32
    # val has six images per class: each image occurs once.
    assert len({image.tobytes() for image in images}) == 12


def test_without_its_data_a_run_is_checked_on_noise_with_a_warning(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    resolved = copy / "resolved.yaml"
    trained = load_trained(copy)
    assert trained.recipe is not None
    resolved.write_text(resolved.read_text().replace(trained.recipe.data.source, str(tmp_path / "gone")))
    with caplog.at_level(logging.WARNING, logger="finetune"):
        images, source = check_images(load_trained(copy))
        again, _ = check_images(load_trained(copy))
    assert source == "random"
    assert np.array_equal(images, again)
    assert "random images" in caplog.text
    assert "gone" in caplog.text
