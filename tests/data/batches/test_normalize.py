"""Normalised batches are bit-identical to the preprocessing of single images."""

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data.batches.batch import PixelBatch
from finetune.data.batches.normalize import Normalizer
from finetune.image.preprocessing import Preprocessing

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLOURS = [IMAGENET, ((0.449,), (0.226,)), (IMAGENET[0] * 2, IMAGENET[1] * 2), ((0.0,) * 4, (1 / 3,) * 4)]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="none")),
]


def batch(preprocessing: Preprocessing, images: list[Image.Image]) -> PixelBatch:
    pixels = np.stack([preprocessing.colours(np.asarray(image)) for image in images])
    places = torch.arange(len(images))
    return PixelBatch(torch.from_numpy(pixels), places, tuple(places.tolist()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("mean", "std"), COLOURS)
def test_every_value_is_bit_identical(mean: tuple[float, ...], std: tuple[float, ...], device: str) -> None:
    preprocessing = Preprocessing(16, 16, "shorter", "bilinear", mean, std)
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images = [Image.fromarray(np.stack([np.roll(values, n + c) for c in range(3)], axis=2)) for n in range(3)]
    made = Normalizer(preprocessing, torch.device(device))(batch(preprocessing, images))
    assert made.images.dtype == torch.float32
    assert made.images.shape == (3, len(mean), 16, 16)
    expected = np.stack([preprocessing.normalize(image) for image in images])
    np.testing.assert_array_equal(made.images.cpu().numpy(), expected)


def test_only_erased_pixels_are_zero() -> None:
    preprocessing = Preprocessing(8, 8, "shorter", "bilinear", *IMAGENET)
    read = batch(preprocessing, [Image.new("RGB", (8, 8), (255, 255, 255))] * 3)
    read.erased = ((1, (2, 3, 4, 5)),)
    made = Normalizer(preprocessing, torch.device("cpu"))(read).images
    erased = torch.zeros(3, 8, 8, dtype=torch.bool)
    erased[1, 2:6, 3:8] = True
    assert torch.equal(made == 0, erased[:, None].expand(3, 3, 8, 8))


def test_an_empty_batch() -> None:
    preprocessing = Preprocessing(8, 8, "shorter", "bilinear", *IMAGENET)
    empty = PixelBatch(torch.empty(0, 8, 8, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), ())
    assert Normalizer(preprocessing, torch.device("cpu"))(empty).images.shape == (0, 3, 8, 8)
