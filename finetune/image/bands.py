"""Reads images with more than three bands, from TIFF files and NumPy arrays (``.npy``), as 8 bits per band.

Values are scaled by the range of their type, in every image alike: 65,535 becomes 255; so does 32,767 in
signed 16-bit files (negative values become 0), and 4,095 in 12-bit files. Fractions from 0 to 1 become 0 to
255. Other types are refused, since they have no range that images usually fill.

In a TIFF file, every sample of a pixel is a band, including transparency and inks. If there is one sample per
pixel, every page is a band. The orientation of the file is applied. An array has the shape (height, width,
bands) or (bands, height, width): the axis whose length is the requested number of bands is the axis of bands.
"""

import io
import logging
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune.errors import BadImageError, MissingExtraError
from finetune.image.decode import (
    MAX_ELONGATION,
    MAX_PIXELS,
    NPY_MAGIC,
    ORIENTATION,
    open_rgb,
    read_file,
    read_image,
)
from finetune.image.modes import scaled
from finetune.image.pixels import ImageOrBands, Pixels, map_triples
from finetune.image.tiff import MAGIC, most_bits, tiff_layout

COLOURS = 3
# The size of the largest RGB image.
MAX_VALUES = COLOURS * MAX_PIXELS
# More than the header of an array of plain numbers ever takes.
HEADER_BYTES = 16 << 10
ORIENTATION_TAG = 274


class _Header(NamedTuple):
    """The header of a ``.npy`` file: shape, Fortran order, type, and the offset of the values."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int


def open_image(path: Path, bands: int | None = None, shorter: int | None = None) -> ImageOrBands:
    """Read an image as the network takes it.

    Args:
        bands: None reads any file as RGB. 3 reads RGB, and refuses files with more bands. A larger number
            reads a file of exactly this many bands: uint8 (height, width, bands).
        shorter: as in :func:`~finetune.image.decode.open_rgb`; ignored for bands.

    Raises:
        BadImageError: the file cannot be read, or has another number of bands.
        MissingExtraError: a TIFF file of many bands needs tifffile, which is not installed.
    """
    if bands is not None and bands > COLOURS:
        return open_bands(path, bands)
    if bands is not None and (found := count_bands(path, COLOURS)) > COLOURS:
        raise BadImageError(
            str(path), f"has {found} bands, but this network repeats the three colours in its channels"
        )
    return open_rgb(path, shorter)


def open_bands(path: Path, bands: int) -> Pixels:
    """Read all bands of a TIFF file or an array: uint8 (height, width, bands).

    Raises:
        BadImageError, MissingExtraError: as in :func:`open_image`.
    """
    kind = read_file(path, _kind)
    if kind == "TIFF":
        require_tifffile()
        return read_file(path, lambda file: _read_tiff(file, str(path), bands))
    if kind == "npy":
        return read_file(path, lambda file: _read_npy(file, str(path), bands))
    raise BadImageError(
        str(path), f"no TIFF file and no array (.npy): {bands} bands can be read from these only"
    )


def count_bands(path: Path, wanted: int) -> int:
    """The number of bands of a file, from its header; 3 for every format that has colours only.

    Args:
        wanted: the number of bands that an array must have.

    Raises:
        BadImageError: the file cannot be read, or is an array with another number of bands.
    """
    kind = read_file(path, _kind)
    if kind == "npy":
        header = read_file(path, lambda file: _npy_header(file, str(path)))
        _band_axis(header.shape, wanted, str(path))
        return wanted
    if kind != "TIFF":
        return COLOURS
    layout = read_file(path, tiff_layout)
    if layout is None:
        raise BadImageError(str(path), "damaged: its TIFF header cannot be read")
    if layout.bands > 1:
        return layout.bands
    return read_image(path, lambda image: int(getattr(image, "n_frames", 1)))


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF file does.

    Raises:
        BadImageError: the file cannot be read.
    """
    return read_file(path, _kind) == "TIFF"


def require_tifffile() -> Any:
    """Import tifffile, which reads TIFF files that Pillow does not.

    Raises:
        MissingExtraError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError:
        raise MissingExtraError("Reading the bands of a TIFF file", "tifffile", "bands") from None
    # It logs odd metadata. Serious problems are errors anyway.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return tifffile


def _kind(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(8)
    return "TIFF" if head.startswith(MAGIC) else "npy" if head.startswith(NPY_MAGIC) else ""


def _read_tiff(file: BinaryIO, name: str, bands: int) -> Pixels:
    nbytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    with require_tifffile().TiffFile(file, name=name) as tiff:
        first = tiff.pages.first
        pages = [first]
        if first.samplesperpixel == 1:
            count = len(tiff.pages)
            if count != bands:
                pages_found = "1 page" if count == 1 else f"{count} pages"
                raise BadImageError(name, f"has {pages_found} of 1 band, not {bands} bands")
            pages = [first, *(tiff.pages.get(number) for number in range(1, count))]
        elif first.samplesperpixel != bands:
            raise BadImageError(name, f"has {first.samplesperpixel} bands, not {bands}")
        if any((page.shaped, page.dtype) != (first.shaped, first.dtype) for page in pages):
            raise BadImageError(name, "its pages differ in size or type: no bands of one image")
        separate, depth, height, width, together = first.shaped
        if depth != 1 or separate * together != first.samplesperpixel:
            raise BadImageError(name, "a volume, not an image")
        _check_size(width, height, bands, name)
        for page in pages:
            ends = zip(page.dataoffsets, page.databytecounts, strict=False)
            if not page.dataoffsets or any(offset + count > nbytes for offset, count in ends):
                raise BadImageError(name, "truncated: its end is missing")
        full = _full(first.dtype, first.bitspersample, name)
        planes = []
        for page in pages:
            values = _decoded(page).reshape(page.shaped)
            planes.append(_to_bytes(np.moveaxis(values[:, 0], 0, -2).reshape(height, width, -1), full, name))
        pixels = np.ascontiguousarray(np.concatenate(planes, axis=2))
        tag = first.tags.get(ORIENTATION_TAG)
    method = None if tag is None else ORIENTATION.get(int(tag.value))
    if method is None:
        return pixels
    return map_triples(pixels, lambda triple, _: triple.transpose(method))


def _decoded(page: Any) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = page.asarray(maxworkers=1)
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise MissingExtraError("Decoding this kind of TIFF file", "imagecodecs", "bands") from None
        raise
    return values


def _read_npy(file: BinaryIO, name: str, bands: int) -> Pixels:
    header = _npy_header(file, name)
    axis = _band_axis(header.shape, bands, name)
    height, width = (size for place, size in enumerate(header.shape) if place != axis)
    _check_size(width, height, bands, name)
    full = _full(header.dtype, 8 * header.dtype.itemsize, name)
    nbytes = height * width * bands * header.dtype.itemsize
    found = file.seek(0, io.SEEK_END) - header.start
    if found < nbytes:
        raise BadImageError(name, "truncated: its end is missing")
    if found > nbytes:
        raise BadImageError(name, f"damaged: {found - nbytes} bytes more than its header states")
    file.seek(header.start)
    values = np.frombuffer(file.read(nbytes), dtype=header.dtype)
    shaped = values.reshape(header.shape, order="F" if header.fortran else "C")
    return np.ascontiguousarray(_to_bytes(np.moveaxis(shaped, axis, 2), full, name))


def _npy_header(file: BinaryIO, name: str) -> _Header:
    # Only the first bytes are read: a header may claim any length.
    file.seek(0)
    head = io.BytesIO(file.read(HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
    except Exception:
        # NumPy's message may quote the header, which may contain anything.
        raise BadImageError(name, "damaged: its array header cannot be read") from None
    if dtype.hasobject or dtype.fields is not None or dtype.subdtype is not None:
        raise BadImageError(name, "an array of Python objects or records, which cannot be read")
    if len(shape) != 3 or min(shape) < 1:
        raise BadImageError(
            name, f"an array of shape {shape}; an image is (height, width, bands) or (bands, height, width)"
        )
    return _Header(shape, bool(fortran), dtype, head.tell())


def _band_axis(shape: tuple[int, ...], bands: int, name: str) -> int:
    first, last = shape[0] == bands, shape[2] == bands
    if first and last:
        raise BadImageError(
            name, f"an array of shape {shape}: the first or the last axis may be the {bands} bands"
        )
    if not (first or last):
        raise BadImageError(
            name, f"an array of shape {shape}: neither the first nor the last axis is {bands} bands"
        )
    return 0 if first else 2


def _check_size(width: int, height: int, bands: int, name: str) -> None:
    values = width * height * bands
    if width < 1 or height < 1:
        raise BadImageError(name, f"{width} x {height} pixels")
    if values > MAX_VALUES:
        raise BadImageError(
            name, f"{width} x {height} pixels of {bands} bands; at most {MAX_VALUES:,} numbers are decoded"
        )
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise BadImageError(name, f"{width} x {height} pixels: too elongated to be an image")


def _full(dtype: Any, bits: Any, name: str) -> int:
    """The value that becomes 255; 1 for fractions.

    Raises:
        BadImageError: the type has no such value.
    """
    bits = most_bits(bits)
    kind = "" if dtype is None else np.dtype(dtype).kind
    if kind == "u" and 8 <= bits <= 16:
        return int((1 << bits) - 1)
    if kind == "i" and bits == 16:
        return 32_767
    if kind == "f":
        return 1
    known = "uint8, uint16, int16 and fractions (float) from 0 to 1"
    raise BadImageError(name, f"numbers of type {dtype}; bands are read from {known}")


def _to_bytes(values: npt.NDArray[Any], full: int, name: str) -> Pixels:
    if values.dtype.kind != "f":
        return values if full == 255 else scaled(np.clip(values, 0, full), full)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # true for NaN, too
        raise BadImageError(name, f"fractions from {low:g} to {high:g}; all must lie between 0 and 1")
    pixels: Pixels = np.rint(values.astype(np.float64) * 255.0).astype(np.uint8)
    return pixels
