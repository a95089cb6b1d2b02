"""Decodes an image file to 8-bit RGB, or raises an error that names the file.

Uses Pillow, NumPy and the standard library only, and leaves Pillow's process-wide state alone.
"""

import contextlib
import errno
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from finetune.disk.regular import open_regular
from finetune.errors import BadImageError, MissingExtraError, is_out_of_files, printable
from finetune.image.modes import to_rgb
from finetune.image.tiff import MAGIC, tiff_layout

T = TypeVar("T")

# Enough for a 108-megapixel photo. 512 MB when decoded.
MAX_PIXELS = 128_000_000
# A longer strip would have billions of pixels once its shorter side is resized.
MAX_ELONGATION = 100_000
NPY_MAGIC = b"\x93NUMPY"
# Formats that run another program (EPS) or the renderer of the operating system (WMF), and containers that
# Pillow recognises but does not read.
UNSAFE_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_rgb(path: Path, shorter: int | None = None) -> Image.Image:
    """Decode an image file to 8-bit RGB, in memory, with its EXIF orientation applied.

    The contents of the file decide its format, not the suffix of its name. Of several frames or pages, the
    first is read. :func:`~finetune.image.modes.to_rgb` converts other modes. Colour profiles are ignored.

    Args:
        shorter: if given, a JPEG may be decoded at a half, a quarter or an eighth of its size, in a fraction
            of the time, as long as its shorter side still has at least this many pixels.

    Raises:
        BadImageError: the file does not exist, is not a regular file, cannot be read, is empty, not an image,
            truncated or damaged, has more than ``MAX_PIXELS`` pixels (checked before decoding), or one side
            is more than ``MAX_ELONGATION`` times the other.
    """
    return read_image(path, partial(upright_rgb, shorter=shorter))


def read_image(path: Path, read: Callable[[Image.Image], T]) -> T:
    """Open the image at ``path`` without decoding it, and return ``read(image)``.

    Raises:
        BadImageError: as in :func:`open_rgb`. An error raised by ``read`` counts as a damaged image.
    """
    return read_file(path, lambda file: _decode(file, str(path), read))


def read_file(path: Path, read: Callable[[BinaryIO], T]) -> T:
    """Open the file at ``path`` and return ``read(file)``.

    Raises:
        BadImageError: as in :func:`read_image`.
        MissingExtraError: raised by ``read``.
    """
    name = str(path)
    try:
        with _open(path) as file, suppress_warnings():
            return read(file)
    except (BadImageError, MissingExtraError):
        raise
    except UnidentifiedImageError:
        raise BadImageError(name, _why_unidentified(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(name, f"too many pixels; at most {MAX_PIXELS:,} are decoded") from None
    except MemoryError:
        raise BadImageError(name, "not enough memory to decode it") from None
    except OSError as error:
        if is_out_of_files(error):
            raise  # not the fault of the image
        raise BadImageError(name, _os_reason(error)) from None
    except Exception as error:
        # Pillow's decoders raise errors of many kinds on damaged data.
        raise BadImageError(name, _damaged(error)) from None


def upright_rgb(image: Image.Image, shorter: int | None = None) -> Image.Image:
    """Decode an open image to RGB and apply its EXIF orientation; ``shorter`` is as in :func:`open_rgb`."""
    if shorter is not None and min(image.size) > shorter:
        # Has an effect on JPEGs only.
        image.draft(None, reduced_size(*image.size, shorter))
    image.load()
    # After loading: a PNG may have its EXIF data behind the pixels, and Pillow turns a TIFF itself.
    method = ORIENTATION.get(orientation(image))
    rgb = to_rgb(image)
    return rgb if method is None else rgb.transpose(method)


def reduced(image: Image.Image, shorter: int) -> Image.Image:
    """Reduce the shorter side of an image to ``shorter`` pixels. Smaller images stay as they are."""
    if min(image.size) <= shorter:
        return image
    return image.resize(reduced_size(*image.size, shorter), Image.Resampling.BICUBIC)


def reduced_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Width and height with the same aspect ratio, whose shorter side is ``shorter``."""
    longer = shorter * max(width, height) // min(width, height)
    return (shorter, longer) if width <= height else (longer, shorter)


def _open(path: Path) -> BinaryIO:
    name = str(path)
    try:
        file = open_regular(path)
    except ValueError:
        raise BadImageError(name, "not a possible file name") from None
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise BadImageError(name, "empty file (0 bytes)")
    return file


def _decode(file: BinaryIO, name: str, read: Callable[[Image.Image], T]) -> T:
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        if width < 1 or height < 1:
            raise BadImageError(name, f"{width} x {height} pixels")
        if width * height > MAX_PIXELS:
            raise BadImageError(name, f"{width} x {height} pixels; at most {MAX_PIXELS:,} are decoded")
        if max(width, height) > MAX_ELONGATION * min(width, height):
            raise BadImageError(name, f"{width} x {height} pixels: too elongated to be an image")
        return read(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, usually 1 to 8; 1 if there is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Damaged EXIF data does not affect the pixels.
        return 1
    return value if isinstance(value, int) else 1


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in UNSAFE_FORMATS)


class _Suppression:
    """Counts the readers of images, and stores the warning filters from before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.readers = 0
        self.filters = warnings.catch_warnings()

    def enter(self) -> None:
        with self.lock:
            if not self.readers:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.simplefilter("ignore")
            self.readers += 1

    def leave(self) -> None:
        with self.lock:
            self.readers -= 1
            if not self.readers:
                self.filters.__exit__(None, None, None)


_suppression = _Suppression()


def _reset_after_fork() -> None:
    # If another thread holds the lock during a fork, the child process would wait for it endlessly.
    global _suppression
    _suppression = _Suppression()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings about odd metadata and large images. Serious problems are errors anyway.

    Warning filters belong to the process. The first of several threads replaces them, and the last restores
    them. Code that starts threads to read images should enter this context around them.
    """
    mine = _suppression
    mine.enter()
    try:
        yield
    finally:
        mine.leave()


def _os_reason(error: OSError) -> str:
    known = {
        errno.ENOENT: "no such file",
        errno.EACCES: "no permission to read it",
        errno.EPERM: "no permission to read it",
        errno.ELOOP: "a symbolic link to itself",
        errno.ENAMETOOLONG: "the file name is too long",
        errno.ENOTDIR: "no such file",
        errno.EISDIR: "a folder, not an image",
    }
    if error.errno is not None:
        return known.get(error.errno, error.strerror or f"error {error.errno}")
    return _damaged(error)


def _damaged(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))[:120]
    if "truncated" in text.lower():
        return "truncated: its end is missing"
    return f"damaged: {text or type(error).__name__}"


def _why_unidentified(path: Path) -> str:
    """The reason why no decoder recognises a file, according to its first bytes."""
    head, layout = b"", None
    with contextlib.suppress(OSError), open_regular(path) as file:
        head = file.read(512)
        layout = tiff_layout(file) if head.startswith(MAGIC) else None
    if layout is not None:
        reason = (
            f"a TIFF file of {layout.bands} bands of {layout.bits} bits, which cannot be read as colours: "
            "convert it to 1 or 3 bands of 8 bits"
        )
        by_bands = f", or read all its bands with model.in_channels: {layout.bands}"
        return reason + by_bands if layout.bands > 3 else reason
    if head.startswith(NPY_MAGIC):
        return "an array (.npy). Set model.in_channels to its number of bands, 4 or more, to read it"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1"):
        return "a HEIC image, which Pillow does not read: convert it to JPEG"
    if head.lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<html", b"<!doc"):
        return "a text file (XML, SVG or HTML), not an image"
    if head.startswith(b"%!PS"):
        return "PostScript, which is a program, not an image: convert it to PNG"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The end of the bytes may cut a character in two.
        if error.start < len(head) - 3:
            return "not an image, or in a format that Pillow does not read"
    return "a text file, not an image" if b"\0" not in head else "not an image"
