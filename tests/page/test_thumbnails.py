"""Thumbnails are small, whatever the image; each image of a page is stored once."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from finetune.page.album import Album
from finetune.page.thumbnails import MOST_BYTES, SIDE, thumbnail


def content_of(address: str) -> bytes:
    return base64.b64decode(address.partition(",")[2])


def noise(height: int, width: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, bands), np.uint8)


@pytest.mark.parametrize("shape", [(300, 400), (112, 112), (90, 2000), (40, 41)])
def test_noise_fits_the_limit_and_keeps_its_shape(shape: tuple[int, int]) -> None:
    content = content_of(thumbnail(Image.fromarray(noise(*shape))))
    assert len(content) <= MOST_BYTES
    shown = Image.open(io.BytesIO(content))
    assert max(shown.size) <= SIDE
    assert shown.width / shown.height == pytest.approx(shape[1] / shape[0], rel=0.35)


def test_a_plain_photograph_keeps_its_side_and_its_colours() -> None:
    shown = Image.open(io.BytesIO(content_of(thumbnail(Image.new("RGB", (600, 300), (200, 30, 30))))))
    assert shown.size == (SIDE, SIDE // 2)
    assert np.abs(np.asarray(shown.convert("RGB"), int)[20, 20] - [200, 30, 30]).max() < 8


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_a_tiny_image_keeps_its_pixels(bands: int) -> None:
    pixels = noise(8, 8, bands)
    shown = np.asarray(Image.open(io.BytesIO(content_of(thumbnail(pixels)))))
    assert (shown == (pixels[:, :, :3] if bands >= 3 else pixels[:, :, :1])).all()


def test_an_album_stores_an_image_once_and_stops_at_its_limit() -> None:
    album, made = Album(2), []

    def make(name: str) -> str:
        made.append(name)
        return f"data:image/webp;base64,{name}"

    first, again, second = (album.add(name, lambda name=name: make(name)) for name in "aab")  # type: ignore[misc]
    assert album.add("c", lambda: make("c")) is None
    assert made == ["a", "b"]
    assert first is again
    assert first is not None
    assert second is not None
    assert 'src="data:image/webp;base64,a"' in first.tag('"x"')
    assert "src=" not in first.tag("x")
    assert "&#34;x&#34;" in second.tag('"x"')


def test_an_image_that_cannot_be_read_takes_no_room() -> None:
    album = Album(1)
    assert album.add("broken", lambda: None) is None
    assert album.room == 1
