"""A run and its ONNX file predict the same; images are streamed; an unreadable image gets an error."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.checkpoint.card import ModelCard
from finetune.decision.wanted import SETS, Sets, Wanted
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.deploy.predict import Classifier, Outputs, Prediction, predict_batches
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.features.cut import inference_form
from finetune.image.preprocessing import Preprocessing
from finetune.training.trained import Trained

RAW = Preprocessing(
    image_size=8,
    resize=8,
    resize_mode="squash",
    interpolation="nearest",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)


class Reddest:
    """Computes the mean red, green and blue of an image, times ten, as logits."""

    card = ModelCard({}, ("red", "green", "blue"), RAW)

    def __init__(self) -> None:
        self.largest_batch = 0

    def outputs(self, images: np.ndarray) -> Outputs:
        self.largest_batch = max(self.largest_batch, len(images))
        return Outputs(images.mean(axis=(2, 3)) * 10)


def predict(
    classifier: Classifier, paths: list[str], *, top: int | None = None, batch_size: int = 5
) -> list[Prediction]:
    batches = predict_batches(classifier, paths, wanted=Wanted(top), batch_size=batch_size)
    return [prediction for batch in batches for prediction in batch]


def test_order_probabilities_and_unreadable_images(four: list[str]) -> None:
    for batch_size in (1, 2, 3, 32):
        found = predict(Reddest(), four, top=2, batch_size=batch_size)
        assert [p.name for p in found] == four
        assert [p.classes[0] if p.classes else None for p in found] == ["red", None, "blue", "green"]
        assert found[1].error
        expected = np.exp([10, 2, 0]) / np.exp([10, 2, 0]).sum()
        assert found[2].classes == ("blue", "green")
        assert found[2].probabilities == pytest.approx(expected[:2])


def test_a_top_above_the_number_of_classes_gives_all(four: list[str]) -> None:
    (found,) = predict(Reddest(), four[:1], top=99)
    assert len(found.classes) == 3
    assert sum(found.probabilities) == pytest.approx(1)


def test_paths_are_read_as_needed(four: list[str]) -> None:
    """The inputs are endless, so no code may wait for the last one."""
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield four[0]

    classifier = Reddest()
    batches = predict_batches(classifier, endless(), wanted=Wanted(1), batch_size=4)
    for count in range(1, 4):
        assert len(next(batches)) == 4
        assert drawn == 4 * count
    assert classifier.largest_batch == 4


def test_logits_that_are_not_finite_are_an_error_of_that_image(four: list[str]) -> None:
    class Broken(Reddest):
        def outputs(self, images: np.ndarray) -> Outputs:
            logits = super().outputs(images).logits
            logits[0] = math.nan
            return Outputs(logits)

    broken, whole = predict(Broken(), [four[0], four[3]], top=1)
    assert "not finite" in (broken.error or "")
    assert whole.classes == ("green",)


def all_predictions(classifier: Any, folder: Path) -> list[Prediction]:
    paths = sorted(str(path) for path in folder.rglob("*.png"))
    return predict(classifier, paths, top=2)


def test_a_run_and_its_onnx_file_agree(trained: Trained, onnx_model: Path, shapes: Path) -> None:
    import torch

    by_torch = all_predictions(TorchClassifier(trained.module, trained.card, torch.device("cpu")), shapes)
    by_onnx = all_predictions(OnnxClassifier(onnx_model), shapes)
    assert [p.name for p in by_torch] == [p.name for p in by_onnx]
    for one, other in zip(by_torch, by_onnx, strict=True):
        assert one.classes == other.classes
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    assert len({p.classes[0] for p in by_torch}) == 2  # the control
    assert len({p.probabilities[0] for p in by_torch}) > 10


@pytest.mark.parametrize("sets", SETS)
def test_a_run_and_its_onnx_file_give_the_same_sets_and_answers(
    trained: Trained, onnx_model: Path, shapes: Path, sets: Sets
) -> None:
    paths = sorted(str(path) for path in shapes.rglob("*.png"))
    found = []
    wanted = Wanted(coverage=0.6, sets=sets, abstain=0.6)
    both: list[Classifier] = [TorchClassifier(trained.module, trained.card), OnnxClassifier(onnx_model)]
    for classifier in both:
        batches = predict_batches(classifier, paths, wanted=wanted, batch_size=5)
        found.append([(each.prediction_set, each.is_sure) for batch in batches for each in batch])
    assert found[0] == found[1]
    assert all(names is not None and sure is not None for names, sure in found[0])


def test_predictions_come_from_the_folded_network(trained: Trained) -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    cpu, form = torch.device("cpu"), inference_form(trained.module)
    whole = TorchClassifier(trained.module, trained.card, cpu).outputs(images).logits
    folded = TorchClassifier(form, trained.card, cpu).outputs(images).logits
    np.testing.assert_allclose(folded, whole, rtol=1e-4, atol=1e-4)
    half = TorchClassifier(form, trained.card, cpu, "bf16").outputs(images).logits
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, rtol=0.1, atol=0.1 * float(np.abs(whole).max()))
    assert not np.allclose(half, whole, rtol=1e-4, atol=1e-4)
