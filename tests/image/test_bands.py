"""Images of many bands, from TIFF files and arrays: bands are never mixed, and other files are refused."""

import io
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data.dataset import Split
from finetune.data.images import ArrayImages, FileImages
from finetune.data.sources.folders.read import read_folder
from finetune.data.sources.header_checks import has_own_bands
from finetune.errors import BadImageError, DataError, MissingExtraError, UserError
from finetune.image.bands import count_bands, open_bands, open_image
from finetune.image.pixels import map_triples
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection, ColorJitter, RandAugment

Write = Callable[[Path, np.ndarray[Any, Any]], None]


def tifffile() -> Any:
    return pytest.importorskip("tifffile")


def packed(**options: Any) -> Write:
    def write(path: Path, pixels: np.ndarray[Any, Any]) -> None:
        options.setdefault("planarconfig", "contig")
        stored = np.moveaxis(pixels, 2, 0) if options["planarconfig"] == "separate" else pixels
        tifffile().imwrite(path, stored, photometric="minisblack", **options)

    return write


def pages(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    with tifffile().TiffWriter(path) as tiff:
        for band in np.moveaxis(pixels, 2, 0):
            tiff.write(np.ascontiguousarray(band), photometric="minisblack", metadata=None)


def array(first: bool = False, fortran: bool = False) -> Write:
    def write(path: Path, pixels: np.ndarray[Any, Any]) -> None:
        stored = np.moveaxis(pixels, 2, 0) if first else pixels
        np.save(path, np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored))

    return write


KINDS: dict[str, tuple[str, Write]] = {
    "bands last": ("npy", array()),
    "bands first": ("npy", array(first=True)),
    "columns first": ("npy", array(fortran=True)),
    "pixel by pixel": ("tif", packed()),
    "band by band": ("tif", packed(planarconfig="separate")),
    "MM": ("tif", packed(byteorder=">")),
    "BigTIFF": ("tif", packed(bigtiff=True)),
    "tiles": ("tif", packed(tile=(16, 16))),
    "deflate": ("tif", packed(compression="zlib")),
    "LZW": ("tif", packed(compression="lzw")),
    "pages": ("tif", pages),
}


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("bands", [4, 6, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_bands_are_read_in_order(kind: str, bands: int, dtype: str, tmp_path: Path) -> None:
    ending, write = KINDS[kind]
    most = {"u1": 255, "u2": 65_535, "i2": 32_767, "f4": 1}[dtype]
    rows, columns = np.mgrid[0:30, 0:20]
    expected = np.stack([rows + columns + 10 * band for band in range(bands)], axis=2).astype(np.uint8)
    path = tmp_path / f"scene.{ending}"
    values = expected / 255 * most
    write(path, (values if dtype == "f4" else np.rint(values)).astype(dtype))
    np.testing.assert_array_equal(open_bands(path, bands), expected)
    assert count_bands(path, bands) == bands
    np.testing.assert_array_equal(open_image(path, bands), expected)


@pytest.mark.parametrize("kind", ["bands last", "pixel by pixel"])
def test_16_bits_are_scaled_by_their_type(kind: str, tmp_path: Path) -> None:
    ending, write = KINDS[kind]
    for name, values in (("all", np.arange(65_536)), ("few", np.resize(np.arange(1000), 65_536))):
        path = tmp_path / f"{name}.{ending}"
        pixels = np.stack([np.roll(values, band).reshape(256, 256) for band in range(4)], axis=2)
        write(path, pixels.astype(np.uint16))
        np.testing.assert_array_equal(open_bands(path, 4), np.rint(pixels / 257).astype(np.uint8))


def test_signed_values_in_big_endian_order(tmp_path: Path) -> None:
    values = np.resize(np.array([-32_768, -1, 0, 32_767]), (4, 8, 5)).astype(">i2")
    np.save(tmp_path / "a.npy", values)
    found = open_bands(tmp_path / "a.npy", 5)
    np.testing.assert_array_equal(found, np.where(values == 32_767, 255, 0))


def test_orientation_is_applied(tmp_path: Path) -> None:
    pixels = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
    path = tmp_path / "turned.tif"
    packed(extratags=[(274, 3, 1, 6, True)])(path, pixels)
    np.testing.assert_array_equal(open_bands(path, 4), np.rot90(pixels, -1))


def saved(values: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def headed(text: str, version: tuple[int, int] = (1, 0), claims: int | None = None) -> bytes:
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) if claims is None else claims)
    return b"\x93NUMPY" + bytes(version) + size + text.encode()


GOOD = np.zeros((5, 7, 6), np.uint8)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "pickled": (saved(np.full((5, 7, 6), None), allow_pickle=True), "Python objects"),
    "records": (saved(np.zeros((5, 7, 6), [("a", "u1")])), "Python objects or records"),
    "truncated": (saved(GOOD)[:-1], "truncated"),
    "more than it says": (saved(GOOD) + b"x", "1 bytes more"),
    "huge": (headed("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 6), }\n"), "numbers"),
    "beyond whole numbers": (
        headed("{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999, 9999999999999, 6), }\n"),
        "at most",
    ),
    "negative": (
        headed("{'descr': '|u1', 'fortran_order': False, 'shape': (-5, -7, 6), }\n"),
        "of shape (-5, -7, 6)",
    ),
    "a header of 4 GB": (headed("{", (2, 0), claims=2**32 - 1), "header cannot be read"),
    "a program": (headed("__import__('os').system('true')\n"), "header cannot be read"),
    "nothing but a name": (b"\x93NUMPY", "header cannot be read"),
    "version 9": (headed("{}\n", (9, 0)), "header cannot be read"),
    "flat": (saved(np.zeros((5, 6), np.uint8)), "of shape (5, 6)"),
    "other bands": (saved(np.zeros((5, 7, 8), np.uint8)), "neither the first nor the last axis is 6 bands"),
    "either axis": (saved(np.zeros((6, 7, 6), np.uint8)), "the first or the last axis may be"),
    "no pixels": (saved(np.zeros((0, 7, 6), np.uint8)), "of shape (0, 7, 6)"),
    "32 bits": (saved(np.zeros((5, 7, 6), np.uint32)), "type uint32"),
    "8 bits with a sign": (saved(np.zeros((5, 7, 6), np.int8)), "type int8"),
    "complex": (saved(np.zeros((5, 7, 6), np.complex64)), "type complex64"),
    "truth": (saved(np.zeros((5, 7, 6), bool)), "type bool"),
    "fractions above 1": (saved(np.full((5, 7, 6), 1.5)), "fractions from 1.5 to 1.5"),
    "no numbers": (saved(np.full((5, 7, 6), np.nan)), "fractions from nan"),
    "a long strip": (saved(np.zeros((1, 100_001, 6), np.uint8)), "too elongated"),
    "text": (b"hello", "no TIFF file and no array"),
    "empty": (b"", "empty file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_other_arrays_are_refused(kind: str, tmp_path: Path) -> None:
    content, message = HOSTILE[kind]
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(BadImageError) as raised:
        open_bands(path, 6)
    assert message in raised.value.reason


def test_a_sound_array_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(saved(GOOD))
    np.testing.assert_array_equal(open_bands(tmp_path / "a.npy", 6), GOOD)


def test_tiff_files_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 6)).astype(np.uint8)

    def refused(message: str) -> None:
        with pytest.raises(BadImageError, match=message):
            open_bands(path, 6)

    for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"planarconfig": "separate"}):
        packed(**options)(path, pixels)
        np.testing.assert_array_equal(open_bands(path, 6), pixels)
        content = path.read_bytes()
        for cut in (len(content) - 1, len(content) // 2, 40, 8, 3):
            path.write_bytes(content[:cut])
            refused("truncated|damaged|no TIFF")
    packed()(path, pixels[:, :, :5])
    refused("has 5 bands, not 6")
    pages(path, pixels[:, :, :5])
    refused("has 5 pages of 1 band, not 6 bands")
    Image.fromarray(pixels[:, :, :3]).save(path)
    refused("has 3 bands, not 6")
    packed()(path, pixels.astype(np.uint32))
    refused("type uint32")
    packed()(path, pixels.astype(np.float32))
    refused("fractions from 0 to 255")


def test_damaged_files_raise_bad_image_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    draws = np.random.default_rng(1)
    packed(compression="zlib")(path, draws.integers(0, 256, (24, 24, 4)).astype(np.uint8))
    content = path.read_bytes()
    refused = 0
    for _ in range(150):
        changed = bytearray(content)
        for place in draws.integers(0, 400, 3):
            changed[place] = draws.integers(0, 256)
        path.write_bytes(changed)
        try:
            assert open_bands(path, 4).shape[2] == 4
        except BadImageError:
            refused += 1
    assert refused


def test_without_tifffile_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.tif")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtraError, match=r"finetune-pictures\[bands\]"):
        open_bands(tmp_path / "a.tif", 4)
    with pytest.raises(MissingExtraError, match=r"finetune-pictures\[bands\]"):
        has_own_bands(split(tmp_path / "a.tif"), 4)


def test_a_compression_that_needs_more_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(compression="zlib")(tmp_path / "a.tif", np.zeros((8, 8, 4), np.uint8))

    def absent(*args: object, **options: Any) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile().TiffPage, "asarray", absent)
    with pytest.raises(MissingExtraError, match=r"finetune-pictures\[bands\]"):
        open_bands(tmp_path / "a.tif", 4)


def split(*paths: Path) -> Split:
    return Split(FileImages(paths), np.zeros(len(paths), dtype=np.int64))


def files(root: Path) -> dict[str, Path]:
    for name, image in {
        "rgb.png": Image.new("RGB", (8, 8)),
        "rgb.tif": Image.new("RGB", (8, 8)),
        "alpha.png": Image.new("RGBA", (8, 8)),
        "grey.jpg": Image.new("L", (8, 8)),
    }.items():
        image.save(root / name)
    np.save(root / "four.npy", np.zeros((8, 8, 4), np.uint8))
    np.save(root / "six.npy", np.zeros((6, 8, 8), np.uint8))
    (root / "bad.npy").write_bytes(b"x")
    return {path.name: path for path in root.iterdir()}


@pytest.mark.parametrize(
    ("names", "channels", "own"),
    [
        (["rgb.png", "rgb.tif", "alpha.png", "grey.jpg"], 4, False),
        (["rgb.png", "bad.npy"], 6, False),
        (["four.npy"], 4, True),
        (["six.npy", "six.npy"], 6, True),
        (["rgb.png"], 1, False),
        (["rgb.png"], 3, False),
    ],
)
def test_the_files_decide_how_channels_are_read(
    names: list[str], channels: int, own: bool, tmp_path: Path
) -> None:
    there = files(tmp_path)
    assert has_own_bands(split(*(there[name] for name in names)), channels) is own


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (["six.npy", "rgb.png"], 6, "has only colours"),
        (["rgb.tif", "four.npy"], 4, "has only colours"),
        (["four.npy"], 6, "neither the first nor the last axis is 6 bands"),
        (["four.npy"], 3, "an array .* it is 3"),
        (["four.npy"], 1, "an array .* it is 1"),
    ],
)
def test_mixed_or_unsuitable_files_are_refused(
    names: list[str], channels: int, message: str, tmp_path: Path
) -> None:
    there = files(tmp_path)
    with pytest.raises(DataError, match=message):
        has_own_bands(split(*(there[name] for name in names)), channels)


def test_with_skip_unsuitable_files_are_left_out(tmp_path: Path) -> None:
    there = files(tmp_path)
    mixed = split(there["rgb.png"], there["four.npy"], there["six.npy"])
    assert has_own_bands(mixed, 4, skips=True)
    for place in (0, 2):
        with pytest.raises(BadImageError, match="4 bands"):
            mixed.image(place, 4)
    # With no suitable file, no image would be left.
    with pytest.raises(DataError, match="neither the first nor the last axis is 5 bands"):
        has_own_bands(split(there["four.npy"], there["six.npy"]), 5, skips=True)


def test_images_without_files_have_colours_only() -> None:
    images = ArrayImages(np.zeros((2, 8, 8, 3), np.uint8), "set")
    found = Split(images, np.zeros(2, dtype=np.int64))
    assert not has_own_bands(found, 6)
    assert isinstance(found.image(0, 3), Image.Image)
    with pytest.raises(BadImageError, match="not a file"):
        found.image(0, 6)


def test_a_network_of_repeated_colours_refuses_bands(tmp_path: Path) -> None:
    """eval and predict may meet files that training did not."""
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(BadImageError, match="has 4 bands"):
        open_image(tmp_path / "a.tif", 3)
    assert isinstance(open_image(tmp_path / "a.tif"), Image.Image)


def test_arrays_are_images_only_if_there_are_no_others(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.zeros((8, 8, 4), np.uint8))
    found = read_folder(tmp_path).splits["all"]
    assert [Path(found.name(index)).name for index in range(len(found))] == ["0.npy", "0.npy"]
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    found = read_folder(tmp_path).splits["all"]
    assert [Path(found.name(index)).name for index in range(len(found))] == ["0.png", "0.png"]


MEAN, STD = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)


def of_bands(**changes: Any) -> Preprocessing:
    facts: dict[str, Any] = {
        "image_size": 16, "resize": 20, "resize_mode": "shorter", "interpolation": "bicubic",
        "mean": MEAN, "std": STD, "reads": "bands",
    }  # fmt: skip
    return Preprocessing(**(facts | changes))


@pytest.fixture
def image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (37, 50, 4)).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["shorter", "squash", "pad"])
def test_bands_are_preprocessed_alone(
    mode: Any, interpolation: Any, image: np.ndarray[Any, np.dtype[np.uint8]]
) -> None:
    resize = 12 if mode == "pad" else 20
    whole = of_bands(resize_mode=mode, interpolation=interpolation, resize=resize)(image)
    assert whole.shape == (4, 16, 16)
    assert whole.dtype == np.float32
    for band in range(4):
        alone = Preprocessing(16, resize, mode, interpolation, (MEAN[band],) * 3, (STD[band],) * 3)
        grey = Image.fromarray(np.ascontiguousarray(image[:, :, band])).convert("RGB")
        np.testing.assert_array_equal(whole[band], alone(grey)[0])


AUGMENTED: dict[str, AugmentSection] = {
    "nothing": AugmentSection(),
    "crop": AugmentSection(crop="random_resized"),
    "flips": AugmentSection(flip=True, vertical_flip=True),
    "rotation and shift": AugmentSection(rotation=25.0, translate=0.2),
    "all": AugmentSection(crop="random_resized", flip=True, rotation=25.0, random_erasing=0.9),
}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("name", AUGMENTED)
def test_augmentation_treats_all_bands_alike(
    name: str, interpolation: Any, image: np.ndarray[Any, np.dtype[np.uint8]]
) -> None:
    """A band by itself, three times over, gives the same view for the same key."""
    preprocessing = of_bands(interpolation=interpolation)
    transform = TrainTransform(AUGMENTED[name], preprocessing)
    differs = False
    for key in range(4):
        looked = transform.view(transform.base(image), key)
        for band in range(4):
            alone = TrainTransform(
                AUGMENTED[name],
                Preprocessing(16, 20, "shorter", interpolation, (MEAN[band],) * 3, (STD[band],) * 3),
            )
            grey = Image.fromarray(np.ascontiguousarray(image[:, :, band])).convert("RGB")
            expected = alone.view(alone.base(grey), key)
            apart = looked.pixels[:, :, band].astype(int) - expected.pixels[:, :, 0]
            # torch has another kernel for three bands, which rounds otherwise.
            assert np.abs(apart).max() <= (1 if "crop" in name or name == "all" else 0)
            assert looked.erased == expected.erased
        other = transform.view(transform.base(image), 99)
        differs = differs or not np.array_equal(looked.pixels, other.pixels)
    assert differs or name == "nothing"


def test_the_random_state_is_restored(image: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    transform = TrainTransform(AUGMENTED["all"], of_bands())
    before = torch.get_rng_state()
    transform.view(transform.base(image), 5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "augment",
    [
        AugmentSection(color_jitter=ColorJitter(brightness=0.2)),
        AugmentSection(randaugment=RandAugment()),
        AugmentSection(trivial_augment=True),
    ],
)
def test_augmentations_of_colours_are_refused(augment: AugmentSection) -> None:
    with pytest.raises(UserError, match="needs colours, and these images have 4 bands"):
        TrainTransform(augment, of_bands())
    TrainTransform(augment, of_bands(reads="colours"))


def test_descriptions_state_bands_and_older_ones_stay() -> None:
    described = of_bands().to_dict()
    assert described["reads"] == "bands"
    assert Preprocessing.from_dict(described) == of_bands()
    colours = of_bands(reads="colours")
    assert "reads" not in colours.to_dict()
    assert Preprocessing.from_dict(colours.to_dict()) == colours
    for wrong in ({"reads": "all"}, {"mean": MEAN[:3], "std": STD[:3]}):
        with pytest.raises(ValueError, match="reads"):
            of_bands(**wrong)
    with pytest.raises(ValueError, match="an image of 4 bands is needed"):
        of_bands()(np.zeros((8, 8, 6), np.uint8))


@pytest.mark.parametrize("bands", [1, 3, 4, 5, 6, 7])
def test_triples_lose_no_band(bands: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, bands)).astype(np.uint8)
    found = map_triples(pixels, lambda three, _: three.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    np.testing.assert_array_equal(found, pixels[:, ::-1])
