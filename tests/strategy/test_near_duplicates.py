"""Near-duplicates: alignment against known warps, search against brute force, copies and strangers."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from finetune.data.images import ArrayImages
from finetune.strategy.doctor.alignment import differences
from finetune.strategy.doctor.image_facts import THUMB, ImageFacts, read_all_facts
from finetune.strategy.doctor.near_duplicates import codes, find_near_duplicates, nearest

Scene = Callable[..., Image.Image]


def thumb(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert("L").resize((THUMB, THUMB), Image.Resampling.BILINEAR))


def facts_of(images: list[Image.Image]) -> list[ImageFacts]:
    side = images[0].size
    pixels = np.stack([np.asarray(image.resize(side).convert("RGB")) for image in images])
    return list(read_all_facts(ArrayImages(pixels, "x"), 1))


def test_alignment_undoes_crops_and_brightness(scene: Scene) -> None:
    first, second = [], []
    rng = np.random.default_rng(0)
    for number in range(20):
        image = scene(number, (160, 160))
        left, top, right, bottom = rng.uniform(0, 12, 4)
        part = image.crop((left, top, 160 - right, 160 - bottom)).point(lambda value: 0.8 * value + 20)
        first.append(thumb(part))
        second.append(thumb(image))
    assert differences(np.stack(first), np.stack(second)).max() < 0.01
    assert differences(np.stack(second), np.stack(first)).max() < 0.01


def test_strangers_stay_apart(scene: Scene) -> None:
    thumbs = np.stack([thumb(scene(number)) for number in range(40)])
    assert differences(thumbs, np.roll(thumbs, 1, axis=0)).min() > 0.05


def test_plain_images_have_no_code() -> None:
    thumbs = np.full((3, THUMB, THUMB), 200, dtype=np.uint8)
    _, _, usable = codes(thumbs)
    assert not usable.any()
    assert np.isfinite(differences(thumbs, thumbs)).all()
    plain = [Image.new("RGB", (40, 40), (value, 90, 90)) for value in (10, 60, 200, 250, 90)]
    assert find_near_duplicates(facts_of(plain)) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 700), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_search_equals_brute_force(count: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places, cosines = nearest(vectors, vectors, k)
    full = vectors @ vectors.T
    np.fill_diagonal(full, -np.inf)
    expected = -np.sort(-full, axis=1)[:, : min(k, count - 1)]
    np.testing.assert_allclose(cosines, expected, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(full, places, axis=1), expected, atol=1e-5)


def test_a_mirrored_copy_is_reported_as_such(scene: Scene) -> None:
    images = [scene(number) for number in range(12)]
    images.append(images[4].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    (pair,) = find_near_duplicates(facts_of(images))
    assert (pair.first, pair.second, pair.mirrored) == (4, 12, True)


def test_many_copies_of_one_image_are_found(scene: Scene) -> None:
    images = [scene(number) for number in range(30)]
    images += [images[3].crop((each, each, 96, 80)) for each in range(1, 7)]
    named = {index for pair in find_near_duplicates(facts_of(images)) for index in (pair.first, pair.second)}
    assert named == {3, *range(30, 36)}


def test_drawings_of_one_kind_are_not_copies() -> None:
    """Strokes on white, which are as similar as handwriting."""
    rng = np.random.default_rng(5)
    images = []
    for _ in range(120):
        image = Image.new("RGB", (105, 105), "white")
        draw = ImageDraw.Draw(image)
        points = [tuple(rng.integers(15, 90, 2).tolist()) for _ in range(4)]
        draw.line(points, fill="black", width=3)
        images.append(image)
    assert len(find_near_duplicates(facts_of(images))) <= 1


def test_small_digits_are_rarely_copies() -> None:
    from finetune.data.sources.named.known import read_known

    images = read_known("digits").splits["all"].images
    some = [facts for facts, _ in zip(read_all_facts(images, 1), range(600), strict=False)]
    named = {index for pair in find_near_duplicates(some) for index in (pair.first, pair.second)}
    assert len(named) <= 0.02 * len(some)


def test_another_colour_is_another_drawing(scene: Scene) -> None:
    images = [scene(number) for number in range(12)]
    drawn = []
    for fill in ((200, 30, 30), (40, 110, 40)):
        image = Image.new("RGB", (96, 80), "white")
        ImageDraw.Draw(image).regular_polygon((48, 40, 30), 5, fill=fill)
        drawn.append(image)
    assert find_near_duplicates(facts_of(images + drawn)) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_three_images_or_fewer_have_no_copies(scene: Scene, count: int) -> None:
    assert find_near_duplicates(facts_of([scene(number) for number in range(count)]) if count else []) == []
