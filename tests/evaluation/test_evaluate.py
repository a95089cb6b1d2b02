"""An evaluation runs in eval mode, computes the right numbers and counts unreadable images."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.dataset import Split
from finetune.decision.probabilities import softmax
from finetune.errors import BadImageError, DataError
from finetune.evaluation.evaluate import Evaluation, collect_logits
from finetune.image.preprocessing import Preprocessing

RAW = Preprocessing(
    image_size=4,
    resize=4,
    resize_mode="squash",
    interpolation="nearest",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
CLASSES = ("red", "green", "blue")
CPU = torch.device("cpu")


class Colours:
    """Images of one colour each; number ``bad`` cannot be read."""

    colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 0), (0, 10, 5), (9, 0, 10), (70, 0, 0))
    thread_safe = True

    def __init__(self, bad: int | None = None) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return len(self.colours)

    def name(self, index: int) -> str:
        return f"image {index}"

    def path(self, index: int) -> None:
        return None

    def digest(self, index: int) -> bytes:
        return bytes(self.colours[index])

    def stamp(self, index: int) -> None:
        return None

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        if index == self.bad:
            raise BadImageError(self.name(index), "truncated")
        return Image.new("RGB", (4, 4), self.colours[index])


# The last image is labelled green but is red.
TARGETS = np.array([0, 1, 2, 0, 1, 2, 1], dtype=np.int64)


class MeanColour(nn.Module):
    """Computes the mean of each channel as logits. Active dropout would change them."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        means: torch.Tensor = self.dropout(images).mean((2, 3))
        return means


def split(bad: int | None = None) -> Split:
    return Split(Colours(bad), TARGETS)


def evaluate(
    module: nn.Module,
    images: Split,
    *,
    batch_size: int = 3,
    on_bad_image: Literal["error", "skip"] = "error",
    autocast: AbstractContextManager[Any] | None = None,
) -> Evaluation:
    batches = eval_batches(images, RAW, ReadOptions(batch_size, on_bad_image=on_bad_image))
    collected = collect_logits(module, batches, torch.device("cpu"), autocast)
    return Evaluation(collected.metrics(CLASSES), collected, images, "val")


@pytest.mark.parametrize("batch_size", [1, 3, 7, 99])
def test_numbers_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    found = evaluate(MeanColour().train(), split(), batch_size=batch_size)
    assert found.metrics.n == 7
    assert found.metrics.top1 == pytest.approx(6 / 7)
    assert found.metrics.confusion.tolist() == [[2, 0, 0], [1, 2, 0], [0, 0, 2]]
    np.testing.assert_allclose(found.collected.logits, np.array(Colours.colours) / 255, atol=1e-6)
    assert found.to_dict()["split"] == "val"
    assert found.to_dict()["skipped"] == []


def test_each_part_of_a_network_in_training_gets_its_mode_back() -> None:
    module = nn.Sequential(MeanColour(), nn.BatchNorm1d(3)).train()
    module[1].eval()  # like a frozen part
    before = [part.training for part in module.modules()]
    evaluate(module, split())
    assert [part.training for part in module.modules()] == before
    assert before.count(False) == 1


def test_a_bad_image_is_an_error_or_is_skipped_and_named() -> None:
    with pytest.raises(BadImageError, match="image 2"):
        evaluate(MeanColour(), split(2))
    found = evaluate(MeanColour(), split(2), on_bad_image="skip")
    assert found.metrics.n == 6
    assert found.collected.indices.tolist() == [0, 1, 3, 4, 5, 6]
    assert found.to_dict()["skipped"] == [{"path": "image 2", "reason": "truncated"}]


def test_only_unreadable_images_are_an_error() -> None:
    empty = torch.empty(0, 3, 4, 4)
    none = torch.empty(0, dtype=torch.int64)
    batch = Batch(empty, none, none, (), (BadImageError("a.jpg", "empty"),))
    with pytest.raises(DataError, match=r"no images to evaluate.*a\.jpg: empty"):
        collect_logits(MeanColour(), [batch], CPU)
    with pytest.raises(DataError, match="no images to evaluate"):
        collect_logits(MeanColour(), [], CPU)


def test_predictions_table() -> None:
    found = evaluate(MeanColour(), split(1), batch_size=2, on_bad_image="skip")
    header, *rows = found.predictions()
    assert header == [
        "path", "label", "predicted", "correct", "probability", "prob_red", "prob_green", "prob_blue",
    ]  # fmt: skip
    assert [row[0] for row in rows] == [f"image {i}" for i in (0, 2, 3, 4, 5, 6)]
    assert rows[-1][1:4] == ["green", "red", 0]
    assert rows[0][1:4] == ["red", "red", 1]
    expected = softmax(found.collected.logits)
    for row, probabilities in zip(rows, expected, strict=True):
        assert [float(cell) for cell in row[5:]] == pytest.approx(list(probabilities), rel=1e-5)
        assert row[4] == max(row[5:], key=float)


def test_logits_are_float32_under_autocast() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    found = evaluate(module, split(), autocast=torch.autocast("cpu", torch.bfloat16))
    assert found.collected.logits.dtype == np.float32
