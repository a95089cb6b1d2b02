"""Preprocessing equals torchvision's, takes bounded memory, and refuses impossible values."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from finetune.image import preprocessing as module
from finetune.image.preprocessing import Interpolation, Preprocessing, ResizeMode

Noise = Callable[[int, int], Image.Image]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODES = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "lanczos": v2.InterpolationMode.LANCZOS,
}


def preprocessing(
    image_size: int = 24,
    resize: int = 28,
    resize_mode: ResizeMode = "shorter",
    interpolation: Interpolation = "bilinear",
) -> Preprocessing:
    return Preprocessing(image_size, resize, resize_mode, interpolation, MEAN, STD)


def reference(image: Image.Image, made: Preprocessing) -> Image.Image:
    size = [made.resize, made.resize] if made.resize_mode == "squash" else [made.resize]
    resized = v2.Resize(size, interpolation=MODES[made.interpolation], antialias=True)(image)
    return v2.CenterCrop(made.image_size)(resized)


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    image_size=st.integers(1, 60),
    resize=st.integers(1, 70),
    resize_mode=st.sampled_from(["shorter", "squash"]),
    interpolation=st.sampled_from(sorted(MODES)),
)
def test_pixels_equal_torchvisions(
    width: int,
    height: int,
    image_size: int,
    resize: int,
    resize_mode: ResizeMode,
    interpolation: Interpolation,
) -> None:
    rng = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    made = preprocessing(image_size, resize, resize_mode, interpolation)
    ours = made.geometry(image)
    assert ours.size == (image_size, image_size)
    assert ours.tobytes() == reference(image, made).tobytes()


@pytest.mark.parametrize("interpolation", sorted(MODES))
@pytest.mark.parametrize("size", [(1, 150), (150, 1), (3, 400), (640, 480), (480, 640), (224, 224)])
def test_pixels_at_usual_sizes(size: tuple[int, int], interpolation: Interpolation, noise: Noise) -> None:
    made = preprocessing(224, 256, "shorter", interpolation)
    assert made.geometry(noise(*size)).tobytes() == reference(noise(*size), made).tobytes()


@pytest.mark.parametrize("interpolation", sorted(MODES))
@pytest.mark.parametrize(
    "size", [(1, 150), (150, 1), (3, 400), (400, 3), (1, 1), (7, 5), (200, 199), (5, 224)]
)
def test_resizing_only_the_centre_gives_the_same_pixels(
    size: tuple[int, int], interpolation: Interpolation, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or pixels one level apart. The nearest neighbour of a few may be another one."""
    made, image = preprocessing(224, 256, "shorter", interpolation), noise(*size)
    whole = np.asarray(made.geometry(image)).astype(int)
    monkeypatch.setattr(module, "MAX_RESIZED_PIXELS", 1)
    differences = np.abs(np.asarray(made.geometry(image)) - whole)
    if interpolation == "nearest":
        assert (differences > 0).mean() < 0.01
    else:
        assert differences.max() <= 1
        assert (differences > 0).mean() < 0.01


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (2, 9_999)])
@pytest.mark.parametrize("interpolation", sorted(MODES))
def test_an_elongated_image_takes_little_memory(
    size: tuple[int, int], interpolation: Interpolation, noise: Noise
) -> None:
    """After the resize, the whole image would have 655 million pixels."""
    made = preprocessing(224, 256, "shorter", interpolation)
    tracemalloc.start()
    square = made.geometry(noise(*size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert square.size == (224, 224)
    assert peak < 300e6


def test_normalisation_equals_torchvisions(noise: Noise) -> None:
    image = noise(24, 24)
    ours = preprocessing().normalize(image)
    scaled = v2.functional.to_dtype(v2.functional.to_image(image), torch.float32, scale=True)
    theirs = v2.functional.normalize(scaled, list(MEAN), list(STD))
    assert ours.dtype == np.float32
    assert ours.shape == (3, 24, 24)
    assert ours.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)
    exact = (np.asarray(image).transpose(2, 0, 1) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(
        STD, (3, 1, 1)
    )
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-6)


def test_a_call_is_geometry_and_normalisation(noise: Noise) -> None:
    made, image = preprocessing(), noise(50, 31)
    np.testing.assert_array_equal(made(image), made.normalize(made.geometry(image)))


def test_the_argument_is_not_changed(noise: Noise) -> None:
    image = noise(24, 24)
    before = image.tobytes()
    preprocessing(24, 24)(image)
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_than_rgb_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="RGB"):
        preprocessing()(Image.new(mode, (30, 30)))


def test_a_description_survives_json() -> None:
    made = preprocessing(interpolation="lanczos", resize_mode="squash")
    assert Preprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 24.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"resize": "28"}, "resize"),
        ({"resize_mode": "longer"}, "shorter, squash, pad"),
        ({"resize_mode": "pad"}, "at most image_size"),
        ({"interpolation": None}, "bilinear"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean"),
        ({"mean": "abc"}, "mean"),
        ({"std": [0.5, 0.5, 0.0]}, "std"),
        ({"std": None}, "std"),
        ({"extra": 1}, "extra"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(preprocessing().to_dict() | change)


@pytest.mark.parametrize("value", [None, [], 3, {}, {"image_size": 3}])
def test_a_description_of_something_else_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"mapping|lacks"):
        Preprocessing.from_dict(value)


def test_preprocessing_imports_no_torch() -> None:
    modules = "finetune.image.preprocessing, finetune.image.decode"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_channel_is_the_luma_of_pillow(noise: Noise) -> None:
    image = noise(40, 30)
    grey = Preprocessing(24, 28, "shorter", "bilinear", (0.4,), (0.2,))
    expected = (
        np.asarray(Image.fromarray(np.asarray(grey.geometry(image))).convert("L"), np.float32)
        / np.float32(255)
        - 0.4
    ) / 0.2
    assert grey(image).shape == (1, 24, 24)
    np.testing.assert_allclose(grey(image)[0], expected, rtol=1e-5, atol=1e-6)
    assert Preprocessing.from_dict(grey.to_dict()) == grey
    assert grey.mean_colour == (102, 102, 102)


def test_more_than_three_channels_repeat_the_colours(noise: Noise) -> None:
    image = noise(40, 30)
    many = Preprocessing(24, 28, "shorter", "bilinear", (*MEAN, *MEAN[:2]), (*STD, *STD[:2]))
    assert np.array_equal(many(image), preprocessing()(image)[[0, 1, 2, 0, 1]])
    assert many.mean_colour == preprocessing().mean_colour
    for mean, std in (((0.5, 0.5), (0.5, 0.5)), ((), ()), ((0.5,), STD)):
        with pytest.raises(ValueError, match="must be one or three finite numbers or more"):
            Preprocessing(24, 28, "shorter", "bilinear", mean, std)


def padded(image_size: int = 24, interpolation: Interpolation = "bilinear", **changes: Any) -> Preprocessing:
    settings: dict[str, Any] = {"resize": image_size, "mean": MEAN, "std": STD} | changes
    return Preprocessing(image_size=image_size, resize_mode="pad", interpolation=interpolation, **settings)


@settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    image_size=st.integers(1, 60),
    share=st.floats(0.3, 1.0),
    interpolation=st.sampled_from(sorted(MODES)),
)
def test_padding_shows_the_whole_image_undistorted(
    width: int, height: int, image_size: int, share: float, interpolation: Interpolation
) -> None:
    rng = np.random.default_rng(width * 1000 + height)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    resize = max(1, int(image_size * share))
    made = padded(image_size, interpolation, resize=resize)
    wide, tall = made.resized(width, height)
    assert max(wide, tall) == resize
    assert abs(wide * height - tall * width) <= max(width, height)  # rounded, and at least 1
    left, top = (image_size - wide) // 2, (image_size - tall) // 2
    pixels = np.asarray(made.geometry(image))
    assert pixels.shape == (image_size, image_size, 3)
    whole = np.asarray(image.resize((wide, tall), module.RESAMPLING[interpolation]))
    assert np.array_equal(pixels[top : top + tall, left : left + wide], whole)
    rest = np.ones((image_size, image_size), dtype=bool)
    rest[top : top + tall, left : left + wide] = False
    assert (pixels[rest] == made.mean_colour).all()
    # The padding is 0 for the network, up to the rounding of 8 bits.
    assert (np.abs(made(image)[:, rest]) <= 0.5 / 255 / min(STD) + 1e-6).all()


def test_padding_differs_from_a_crop_for_wide_images(noise: Noise) -> None:
    wide, square = noise(80, 20), noise(50, 50)
    cropped = preprocessing(24, 24)
    assert padded().geometry(wide).tobytes() != cropped.geometry(wide).tobytes()
    assert padded().geometry(square).tobytes() == cropped.geometry(square).tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 100_000), (100_000, 1), (3, 2)])
def test_padding_takes_any_shape(size: tuple[int, int]) -> None:
    assert padded(64).geometry(Image.new("RGB", size)).size == (64, 64)


@pytest.mark.parametrize("mean", [(0.4,), (*MEAN, *MEAN[:2])])
def test_padding_is_zero_with_any_number_of_channels(mean: tuple[float, ...]) -> None:
    made = padded(mean=mean, std=(0.2,) * len(mean))
    border = made(Image.new("RGB", (80, 20)))[:, 0]
    assert np.abs(border).max() <= 0.5 / 255 / 0.2 + 1e-6
    assert Preprocessing.from_dict(json.loads(json.dumps(made.to_dict()))) == made
