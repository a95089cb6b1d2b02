"""Images in memory: predicted like the same image in a file; others yield an error each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from finetune.deploy.memory_images import from_memory
from finetune.deploy.onnx_classifier import OnnxClassifier
from finetune.deploy.predict import Classifier, ImageInput, Prediction, predict_batches
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.errors import BadImageError
from finetune.training.trained import Trained

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def close(one: Prediction, other: Prediction) -> bool:
    return one.classes == other.classes and np.allclose(one.probabilities, other.probabilities, atol=1e-4)


def predict(classifier: Classifier, inputs: list[ImageInput]) -> list[Prediction]:
    return [each for batch in predict_batches(classifier, inputs, batch_size=2) for each in batch]


@pytest.mark.parametrize("by", ["torch", "onnx"])
def test_paths_pillow_images_and_arrays_get_the_same_prediction(
    by: str, trained: Trained, onnx_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    classifier: Classifier = OnnxClassifier(onnx_model)
    if by == "torch":
        classifier = TorchClassifier(trained.module, trained.card)
    with Image.open(path) as opened:
        inputs: list[ImageInput] = [str(path), path, opened, Image.fromarray(COLOURS), COLOURS]
        first, *others = predict(classifier, inputs)
    assert sorted(first.classes) == ["disc", "square"]
    assert sum(first.probabilities) == pytest.approx(1)
    assert all(close(first, other) for other in others)
    assert [each.name for each in (first, *others)] == [str(path)] * 2 + [f"inputs[{i}]" for i in (2, 3, 4)]


def test_an_input_that_cannot_be_used_yields_an_error_and_the_others_a_prediction(onnx_model: Path) -> None:
    fractions = COLOURS.astype(np.float32) / 255
    inputs: list[Any] = [COLOURS, fractions, "gone.png", COLOURS]
    found = predict(OnnxClassifier(onnx_model), inputs)
    assert [each.error for each in found] == [
        None, "an array of type float32; pass uint8", "no such file", None,
    ]  # fmt: skip
    assert found[0].classes == found[3].classes


def test_arrays_become_what_the_same_file_becomes() -> None:
    grey = COLOURS[:, :, 0]
    for pixels in (grey, grey[:, :, None], np.repeat(grey[:, :, None], 3, axis=2)):
        assert np.array_equal(np.asarray(from_memory(pixels, "x")), np.repeat(grey[:, :, None], 3, axis=2))
    clear = np.dstack([COLOURS, np.zeros((40, 50), dtype=np.uint8)])
    assert (np.asarray(from_memory(clear, "x")) == 255).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        turned = from_memory(opened, "x")
    assert np.array_equal(np.asarray(turned), np.rot90(COLOURS, -1))


def test_bands_come_as_arrays_of_that_depth() -> None:
    six = np.dstack([COLOURS, COLOURS])
    assert np.array_equal(np.asarray(from_memory(six, "x", 6)), six)
    for image in (COLOURS, COLOURS[:, :, 0], Image.fromarray(COLOURS)):
        with pytest.raises(BadImageError, match="height, width, 6"):
            from_memory(image, "x", 6)
    with pytest.raises(BadImageError, match="height, width, 1 or 3"):
        from_memory(six, "x", 3)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0), (1, 200_000, 3), (5, 5, 2), (5,), (2, 5, 5, 3)])
def test_a_shape_that_is_no_image_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadImageError):
        from_memory(np.zeros(shape, dtype=np.uint8), "x")


def test_a_damaged_pillow_image_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.png"
    Image.fromarray(COLOURS).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as opened, pytest.raises(BadImageError, match="damaged"):
        from_memory(opened, "x")
