"""Data that is not read: doctor and train report further bands, bits and frames."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.errors import BadImageError
from finetune.image.decode import open_rgb
from finetune.image.unread import unread_data, unread_frames

Cli = Callable[..., Any]


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def tiff(
    bands: int,
    bits: int = 8,
    photometric: int = 2,
    extra: int | None = None,
    order: str = "<",
    signed: bool = False,
) -> bytes:
    """A TIFF file of 8 x 8 pixels, of a layout that Pillow cannot write."""
    kind = {8: "u1", 16: "u2", 32: "f4"}[bits]
    pixels = np.arange(64 * bands).reshape(8, 8, bands).astype(order + kind).tobytes()
    entries = [
        (256, 4, (8,)), (257, 4, (8,)), (258, 3, (bits,) * bands), (259, 3, (1,)), (262, 3, (photometric,)),
        (273, 4, (0,)), (277, 3, (bands,)), (278, 4, (8,)), (279, 4, (len(pixels),)), (284, 3, (1,)),
    ]  # fmt: skip
    if extra is not None:
        entries.append((338, 3, (extra,) * (bands - (3 if photometric == 2 else 1))))
    if bits == 32 or signed:
        entries.append((339, 3, (2 if signed else 3,) * bands))
    after = 8 + 2 + 12 * len(entries) + 4
    blobs, table = b"", b""
    for tag, type_, values in entries:
        packed = struct.pack(order + {3: "H", 4: "I"}[type_] * len(values), *values)
        if tag == 273:
            packed = b"\0" * 4  # filled in below
        if len(packed) > 4:
            field, blobs = struct.pack(order + "I", after + len(blobs)), blobs + packed
        else:
            field = packed.ljust(4, b"\0")
        table += struct.pack(order + "HHI", tag, type_, len(values)) + field
    start = struct.pack(order + "I", after + len(blobs))
    place = table.index(struct.pack(order + "HHI", 273, 4, 1)) + 8
    table = table[:place] + start + table[place + 4 :]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    count = struct.pack(order + "H", len(entries))
    return head + count + table + bytes(4) + blobs + pixels


def png_of_16_bits() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = b"".join(b"\0" + bytes(2 * 3 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def two(format: str) -> bytes:
    """A file of two frames or pages."""
    other = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    return saved(Image.new("RGB", (8, 8)), format, save_all=True, append_images=[other])


DEEP = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
ALL_READ = {
    **{f"{mode} {format}": saved(Image.new(mode, (8, 8)), format) for mode, format in [
        ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG"),
        ("LA", "PNG"), ("RGB", "TIFF"), ("RGBA", "TIFF"), ("CMYK", "TIFF"), ("L", "TIFF"), ("1", "TIFF"),
        ("LAB", "TIFF"), ("YCbCr", "TIFF"), ("P", "GIF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("RGB", "PPM"),
    ]},
    "MPO": two("MPO"),
    "alpha": tiff(4, extra=2),
}  # fmt: skip
PARTLY = {
    "grey PNG": (saved(DEEP, "PNG"), "bits", "16 bits per band, of which 8"),
    "colour PNG": (png_of_16_bits(), "bits", "16 bits per band, of which 8"),
    "grey TIFF": (saved(DEEP, "TIFF"), "bits", "16 bits per band, of which 8"),
    "colour TIFF": (tiff(3, 16), "bits", "16 bits per band, of which 8"),
    "colour TIFF, MM": (tiff(3, 16, order=">"), "bits", "16 bits per band, of which 8"),
    "PGM": (b"P5\n2 2\n65535\n" + bytes(8), "bits", "16 bits per band, of which 8"),
    "PPM": (b"P6\n2 2\n65535\n" + bytes(24), "bits", "16 bits per band, of which 8"),
    "fractions": (saved(Image.new("F", (8, 8)), "TIFF"), "bits", "numbers of 32 bits"),
    "whole numbers": (saved(Image.new("I", (8, 8)), "TIFF"), "bits", "numbers of 32 bits"),
    "4 bands": (tiff(4, extra=0), "bands", "4 bands, of which the first 3 are read"),
    "6 bands": (tiff(6, extra=0), "bands", "6 bands, of which the first 3 are read"),
    "grey and more": (tiff(2, photometric=1, extra=0), "bands", "2 bands, of which the first 1 are read"),
    "pages": (two("TIFF"), "frames", "2 pages, of which the first is read"),
    "GIF": (two("GIF"), "frames", "2 frames, of which the first is read"),
    "WEBP": (two("WEBP"), "frames", "2 frames, of which the first is read"),
    "APNG": (two("PNG"), "frames", "2 frames, of which the first is read"),
}


@pytest.mark.parametrize("name", ALL_READ)
def test_a_file_that_is_read_completely_has_no_unread_data(name: str) -> None:
    with Image.open(io.BytesIO(ALL_READ[name])) as image:
        assert (*unread_data(image), *unread_frames(image)) == ()


@pytest.mark.parametrize("name", PARTLY)
def test_unread_data_is_reported(name: str, tmp_path: Path) -> None:
    content, kind, message = PARTLY[name]
    with Image.open(io.BytesIO(content)) as image:
        [left] = (*unread_data(image), *unread_frames(image))
    assert left.kind == kind
    assert message in left.message
    # The file can be read all the same.
    path = tmp_path / "image"
    path.write_bytes(content)
    assert open_rgb(path).mode == "RGB"


def test_bands_and_bits_at_once() -> None:
    with Image.open(io.BytesIO(tiff(4, 16, extra=0))) as image:
        assert [left.kind for left in unread_data(image)] == ["bands", "bits"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bands", "bits"), [(13, 16), (5, 16), (7, 8), (2, 16), (3, 32)])
def test_the_error_of_an_unreadable_tiff_states_its_layout(
    bands: int, bits: int, order: str, tmp_path: Path
) -> None:
    path = tmp_path / "scene.tif"
    path.write_bytes(tiff(bands, bits, photometric=1, extra=0, order=order))
    with pytest.raises(BadImageError, match=f"a TIFF file of {bands} bands of {bits} bits") as raised:
        open_rgb(path)
    assert "convert" in raised.value.reason


def test_a_damaged_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    for content in (b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + bytes(40), b"II+\0" + bytes(3)):
        path.write_bytes(content)
        with pytest.raises(BadImageError):
            open_rgb(path)


@pytest.mark.parametrize(("low", "high"), [(0, 65_535), (100, 900), (60_000, 65_535)])
def test_16_bits_are_scaled_by_their_type(low: int, high: int, tmp_path: Path) -> None:
    values = np.linspace(low, high, 64).astype(np.uint16).reshape(8, 8)
    grey, colour = tmp_path / "grey.png", tmp_path / "colour.tif"
    Image.fromarray(values).save(grey)
    content = bytearray(tiff(3, 16))
    content[-8 * 8 * 3 * 2 :] = np.repeat(values[:, :, None], 3, axis=2).astype("<u2").tobytes()
    colour.write_bytes(content)
    expected = values / 257
    assert np.abs(np.asarray(open_rgb(grey)) - expected[:, :, None]).max() <= 0.5
    assert np.abs(np.asarray(open_rgb(colour)) - expected[:, :, None]).max() <= 1.0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("values", [(0, 100, 32_767), (-32_768, 0, 16_384), (0, 1, 2)])
def test_signed_16_bits_are_scaled(values: tuple[int, ...], order: str, tmp_path: Path) -> None:
    """The same number is the same grey, whatever else is in the image."""
    path = tmp_path / "grey.tif"
    content = bytearray(tiff(1, 16, photometric=1, order=order, signed=True))
    pixels = np.resize(np.array(values), 64)  # before astype: resize would drop the byte order
    content[-128:] = pixels.astype(order + "i2").tobytes()
    path.write_bytes(content)
    expected = np.clip(pixels.astype(float), 0, None) * 255 / 32_767
    assert np.abs(np.asarray(open_rgb(path))[:, :, 0].reshape(-1) - expected).max() <= 0.5
    with Image.open(path) as image:
        [left] = unread_data(image)
    assert "16 bits per band, of which 8 are read (32,767 becomes 255)" in left.message


def test_12_bits_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "grey.tif"
    values = np.linspace(0, 4095, 64).astype(int).reshape(8, 8)
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist()
    )
    content = (
        tiff(1, 16, photometric=1)[:-128].replace(
            struct.pack("<HHIHH", 258, 3, 1, 16, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0)
        )
        + packed
    )
    path.write_bytes(content)
    assert np.abs(np.asarray(open_rgb(path))[:, :, 0] - values * 255 / 4095).max() <= 0.5
    with Image.open(path) as image:
        [left] = unread_data(image)
    assert "12 bits per band, of which 8 are read (4,095 becomes 255)" in left.message


def classes(root: Path, content: bytes) -> None:
    for number, name in enumerate(("field", "water")):
        (root / name).mkdir(parents=True)
        for index in range(12):
            changed = bytearray(content)
            changed[-1 - index] = 10 + 100 * number + index
            (root / name / f"{index}.tif").write_bytes(changed)


RECIPE = """
data: {source: scenes, image_size: 32, workers: 0, val_fraction: 0.25}
model: {backbone: shufflenet_v2_x0_5, weights: none, in_channels: CHANNELS}
train: {batch_size: 8, phases: [{epochs: 1}]}
"""


def test_doctor_and_training_report_unread_data(chdir_tmp: Path, cli: Cli) -> None:
    classes(Path("scenes"), tiff(4, 16, extra=0))
    findings = json.loads(cli("doctor", "scenes", "--json").out)["findings"]
    bands, bits = [each for each in findings if each["kind"] == "partly-read"]
    assert len(bands["files"]) == len(bits["files"]) == 24
    assert "4 bands, of which the first 3 are read" in bands["message"]
    assert "16 bits per band, of which 8 are read" in bits["message"]
    Path("recipe.yaml").write_text(RECIPE.replace("CHANNELS", "3"))
    ended = cli("train", "recipe.yaml")
    assert ended.code == 0, ended.err
    assert "sampled training images have 4 bands, of which the first 3 are read" in ended.err
    assert "sampled training images have 16 bits per band, of which 8 are read" in ended.err


@pytest.mark.parametrize("channels", [5, 8])
def test_repeated_colours_are_not_taken_for_bands(channels: int, chdir_tmp: Path, cli: Cli) -> None:
    classes(Path("scenes"), tiff(4, extra=0))
    Path("recipe.yaml").write_text(RECIPE.replace("CHANNELS", str(channels)))
    ended = cli("train", "recipe.yaml")
    assert ended.code == 2
    assert f"has 4 bands, but model.in_channels is {channels}" in ended.err
    assert "Set in_channels: 4" in ended.err
