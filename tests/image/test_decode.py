"""Image files decode to 8-bit RGB, and hostile files raise an error that names them."""

import io
import os
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from finetune.errors import BadImageError
from finetune.image.decode import MAX_PIXELS, open_rgb
from finetune.image.modes import to_rgb

Noise = Callable[[int, int], Image.Image]
WHITE = (255, 255, 255)


@pytest.fixture
def smooth() -> Image.Image:
    """An image that survives JPEG nearly unchanged: 48 x 32, no two corners alike."""
    across, down = np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def png(width: int, height: int, *, data: bytes = b"\0" * 100) -> bytes:
    """A PNG whose header states this size, whatever its pixels are."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def assert_near(one: Image.Image, other: Image.Image, tolerance: int = 12) -> None:
    assert one.mode == other.mode == "RGB"
    assert one.size == other.size
    difference = np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int))
    assert difference.max() <= tolerance


# Unusual files that decode.


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "JPEG2000", "QOI", "PCX"])
def test_lossless_formats_give_the_same_pixels(kind: str, tmp_path: Path, noise: Noise) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = open_rgb(written(tmp_path / "x", encoded(noise(20, 14), kind, **options)))
    assert image.mode == "RGB"
    assert image.tobytes() == noise(20, 14).tobytes()


@pytest.mark.parametrize("name", ["photo.png", "photo.txt", "photo", "PHOTO.GIF"])
def test_the_contents_decide_the_format(name: str, tmp_path: Path, smooth: Image.Image) -> None:
    assert_near(open_rgb(written(tmp_path / name, encoded(smooth, "JPEG", quality=95))), smooth)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation(orientation: int, kind: str, tmp_path: Path, smooth: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = smooth.copy()
    upright.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(upright)
    image = open_rgb(written(tmp_path / "x", encoded(smooth, kind, exif=exif)))
    assert image.size == ((48, 32) if orientation < 5 else (32, 48))
    assert_near(image, expected, 40 if kind == "WEBP" else 12)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_unknown_orientation_changes_nothing(value: int, tmp_path: Path, smooth: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert open_rgb(written(tmp_path / "x", encoded(smooth, "PNG", exif=exif))).tobytes() == smooth.tobytes()


def test_damaged_exif_data_does_not_hide_the_pixels(tmp_path: Path, smooth: Image.Image) -> None:
    data = encoded(smooth, "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert_near(open_rgb(written(tmp_path / "x.jpg", data)), smooth)


def test_cmyk_is_converted_as_pillow_does(tmp_path: Path, smooth: Image.Image) -> None:
    data = encoded(smooth.convert("CMYK"), "JPEG", quality=95)
    assert_near(open_rgb(written(tmp_path / "x.jpg", data)), smooth)


@pytest.mark.parametrize("mode", ["YCbCr", "LAB", "HSV"])
def test_other_colour_spaces_become_rgb(mode: str, smooth: Image.Image) -> None:
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
        assert_near(to_rgb(image), Image.new("RGB", (4, 4), WHITE))
    else:
        assert_near(to_rgb(smooth.convert(mode)), smooth)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_grey(mode: str, smooth: Image.Image) -> None:
    grey = smooth.convert(mode)
    assert to_rgb(grey).tobytes() == Image.merge("RGB", [grey.convert("L")] * 3).tobytes()


def test_16_bits_are_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 128, 257, 32768, 65534, 65535]], dtype=np.uint16)
    image = open_rgb(written(tmp_path / "x.png", encoded(Image.fromarray(values), "PNG")))
    expected = np.rint(values / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(image), np.repeat(expected[:, :, None], 3, axis=2))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_in_either_byte_order(order: str) -> None:
    image = Image.frombytes(
        "I;16" if order == "<u2" else "I;16B", (2, 1), np.array([514, 65535], order).tobytes()
    )
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(2, 2, 2), WHITE]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 65535], [0, 255]),
        ("I", [0, 257], [0, 1]),
        ("I", [-100, 100], [0, 255]),
        ("I", [7_000_000, 7_000_000], [0, 0]),
        ("F", [0.0, 1.0], [0, 255]),
        ("F", [0.0, 0.5], [0, 128]),
        ("F", [0.0, 254.0], [0, 254]),
        ("F", [0.0, 65535.0], [0, 255]),
        ("F", [-2.0, 2.0], [0, 255]),
        ("F", [float("nan"), 1.0], [255, 255]),
        ("F", [float("inf"), float("nan")], [0, 0]),
    ],
)
def test_integers_and_fractions_as_pixels(mode: str, values: list[float], expected: list[int]) -> None:
    image = Image.new(mode, (2, 1))
    image.putdata(values)
    rgb = to_rgb(image)
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(value,) * 3 for value in expected]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (100, 100, 100, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    rgb = to_rgb(image.convert(mode))
    assert [rgb.getpixel((x, 0)) for x in range(3)] == [WHITE, (100, 100, 100), (204, 204, 204)]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_with_transparency(transparency: int | bytes, tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    rgb = open_rgb(written(tmp_path / "x.png", encoded(image, "PNG", transparency=transparency)))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), WHITE]


@pytest.mark.parametrize(("mode", "colour"), [("L", 9), ("RGB", (9, 9, 9)), ("I;16", 9 * 257)])
def test_a_transparent_colour(mode: str, colour: Any, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.array([[colour, 200 * 257]], dtype=np.uint16))
    else:
        image = Image.new(mode, (2, 1), colour)
        image.putpixel((1, 0), 200 if mode == "L" else (200, 200, 200))
    rgb = open_rgb(written(tmp_path / "x.png", encoded(image, "PNG", transparency=colour)))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (200, 200, 200)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert_near(open_rgb(written(tmp_path / "x", data)), frames[0], 2)


@pytest.mark.parametrize("name", ["ünïcödé ☃.jpg", "two\nlines.jpg", "x" * 251 + ".jpg", " .jpg", "-rf.jpg"])
def test_unusual_names(name: str, tmp_path: Path, smooth: Image.Image) -> None:
    path = written(tmp_path / name, encoded(smooth, "JPEG"))
    assert open_rgb(path).size == smooth.size


def test_a_name_that_is_not_utf8(tmp_path: Path, smooth: Image.Image) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        path.write_bytes(encoded(smooth, "PNG"))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert open_rgb(path).size == smooth.size
    path.write_bytes(b"")
    with pytest.raises(BadImageError, match=r"caf\\udce9.png: empty") as caught:
        open_rgb(path)
    assert caught.value.name == str(path)


def test_one_pixel_and_one_row(tmp_path: Path, noise: Noise) -> None:
    for size in [(1, 1), (10_000, 1), (1, 10_000)]:
        assert open_rgb(written(tmp_path / "x.png", encoded(noise(*size), "PNG"))).size == size


def test_the_image_outlives_its_file(tmp_path: Path, smooth: Image.Image) -> None:
    path = written(tmp_path / "x.png", encoded(smooth, "PNG"))
    image = open_rgb(path)
    path.unlink()
    assert image.crop((0, 0, 48, 32)).tobytes() == smooth.tobytes()


# Files that are refused.


def refused(path: Path) -> str:
    """The reason of the refusal, which takes less than a second and causes no warning."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImageError) as caught:
            open_rgb(path)
    assert time.perf_counter() - began < 1
    assert caught.value.name == str(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_truncated_files_are_refused(kind: str, share: float, tmp_path: Path, noise: Noise) -> None:
    data = encoded(noise(60, 40), kind)
    reason = refused(written(tmp_path / "x", data[: int(share * len(data))]))
    # A GIF that ends within its header cannot be recognised.
    assert any(word in reason for word in ("truncated", "damaged", "not an image"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is a note about cats\n" * 20, "a text file"),
        ("sübtle tëxt ☃".encode() * 60, "a text file"),
        (b"<!DOCTYPE html><html>404 not found</html>", "HTML"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0" * 4000, "not an image"),
        (bytes(range(256)) * 20, "not an image"),
        (b"\xff\xd8\xff", "image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "convert it to JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "PostScript"),
    ],
)
def test_files_that_are_no_images(data: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refused(written(tmp_path / "x.jpg", data))


def test_flipped_bits_raise_no_other_error(tmp_path: Path, noise: Noise) -> None:
    data = bytearray(encoded(noise(60, 40), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert "damaged" in refused(written(tmp_path / "x.png", bytes(data)))


@pytest.mark.parametrize("side", [12_000, 20_000, 60_000, 2_000_000_000])
def test_bombs_are_refused_before_they_are_decoded(side: int, tmp_path: Path) -> None:
    assert side * side > MAX_PIXELS
    reason = refused(written(tmp_path / "bomb.png", png(side, side, data=b"\0" * 10_000_000)))
    assert "128,000,000" in reason


def test_a_large_photo_is_read_without_a_warning(tmp_path: Path) -> None:
    """Pillow itself would warn."""
    data = encoded(Image.new("1", (10_000, 9_500)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_rgb(written(tmp_path / "x.png", data)).size == (10_000, 9_500)


def test_elongated_files_are_refused(tmp_path: Path) -> None:
    assert "too elongated" in refused(written(tmp_path / "x.png", png(1, 200_000)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "x.jpg") == "no such file"
    assert refused(tmp_path / ("x" * 300 + ".jpg")) == "the file name is too long"
    assert refused(tmp_path / "a\0b.jpg") == "not a possible file name"
    assert refused(written(tmp_path / "file", b"x") / "x.jpg") == "no such file"


def test_folders_and_broken_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert refused(tmp_path / "folder.jpg") == "a folder, not an image"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert refused(tmp_path / "loop.jpg") == "a symbolic link to itself"
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    assert refused(tmp_path / "lost.jpg") == "no such file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refused(tmp_path / "pipe.jpg") == "a named pipe, not a regular file"
    assert refused(Path("/dev/null")) == "a device, not a regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, smooth: Image.Image) -> None:
    path = written(tmp_path / "x.png", encoded(smooth, "PNG"))
    path.chmod(0)
    assert refused(path) == "no permission to read it"


def test_the_state_of_pillow_stays(tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    refused(written(tmp_path / "x.png", png(60_000, 60_000)))
    open_rgb(written(tmp_path / "y.png", encoded(noise(5, 5), "PNG")))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert list(warnings.filters) == filters
