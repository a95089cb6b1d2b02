"""One image, safely: from whatever is on the disk to 8-bit RGB, or an error that names it.

Pillow, NumPy and the standard library only. Nothing of Pillow's process-wide state is changed.
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
from finetune.image.modes import to_rgb as to_rgb
from finetune.image.unread import Layout, tiff_layout

T = TypeVar("T")

# Room for a 108-megapixel photo; 512 MB decoded.
MAX_PIXELS = 128_000_000
# A longer strip would grow to billions of pixels when its shorter side is brought to size.
MAX_ELONGATION = 100_000
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY = b"\x93NUMPY"
# Formats that run another program (EPS) or the operating system's renderer (WMF), and containers of which
# Pillow knows the name only.
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
    """Read one image as 8-bit RGB, turned the way its EXIF orientation says, fully in memory.

    With ``shorter``, a JPEG may be decoded at a half, a quarter or an eighth of its size, which takes a
    fraction of the time; its shorter side does not get below so many pixels.

    What the file contains decides, not what its name ends in; of several frames or pages the first counts.
    :func:`to_rgb` says how other modes become RGB. Colour profiles are not applied.

    Raises:
        BadImageError: no such file, not a regular file, unreadable, empty, not an image, truncated, damaged,
            more than ``MAX_PIXELS`` pixels (known before anything is decoded), or one side more than
            ``MAX_ELONGATION`` times the other.
    """
    return read_image(path, partial(upright_rgb, shorter=shorter))


def read_image(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What ``read`` makes of the image at ``path``, which is opened but not decoded yet.

    Raises:
        BadImageError: as :func:`open_rgb`; whatever ``read`` raises means that the image is damaged.
    """
    return read_file(path, lambda file: _decode(file, str(path), read))


def read_file(path: Path, read: Callable[[BinaryIO], T]) -> T:
    """What ``read`` makes of the open file at ``path``.

    Raises:
        BadImageError: as :func:`read_image`.
        MissingExtraError: ``read`` raised it.
    """
    name = str(path)
    try:
        with _open(path) as file, quiet():
            return read(file)
    except (BadImageError, MissingExtraError):
        raise
    except UnidentifiedImageError:
        raise BadImageError(name, _what_it_is(path)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImageError(name, f"too many pixels; at most {MAX_PIXELS:,} are decoded") from None
    except MemoryError:
        raise BadImageError(name, "not enough memory to decode it") from None
    except OSError as error:
        if is_out_of_files(error):
            raise  # it says nothing of the image
        raise BadImageError(name, _os_reason(error)) from None
    except Exception as error:
        # Pillow's decoders answer damaged bytes with errors of many kinds.
        raise BadImageError(name, _damaged(error)) from None


def upright_rgb(image: Image.Image, shorter: int | None = None) -> Image.Image:
    """Decode an opened image to RGB, turned as its EXIF orientation says; ``shorter`` as in
    :func:`open_rgb`."""
    if shorter is not None and min(image.size) > shorter:
        # Does nothing to what is no JPEG.
        image.draft(None, reduced_size(*image.size, shorter))
    image.load()
    # After loading: a PNG may carry its EXIF data behind the pixels, and Pillow turns a TIFF by itself.
    method = ORIENTATION.get(orientation(image))
    rgb = to_rgb(image)
    return rgb if method is None else rgb.transpose(method)


def reduced(image: Image.Image, shorter: int) -> Image.Image:
    """``image`` with its shorter side brought down to ``shorter`` pixels; a smaller one stays as it is."""
    if min(image.size) <= shorter:
        return image
    return image.resize(reduced_size(*image.size, shorter), Image.Resampling.BICUBIC)


def reduced_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """Width and height in the same proportion, the shorter of them ``shorter``."""
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
    """What an image's EXIF data says of how it is turned: 1 to 8, as a rule; 1 where it says nothing."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Damaged EXIF data says nothing about the pixels, which were read.
        return 1
    return value if isinstance(value, int) else 1


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in UNSAFE_FORMATS)


class _Quiet:
    """How many are reading images now, and the warning filters from before the first of them."""

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


_quiet = _Quiet()


def _begin_anew() -> None:
    # A process forked while another thread held the lock, or was reading, would wait for it for ever.
    global _quiet
    _quiet = _Quiet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def quiet() -> Iterator[None]:
    """No Python warnings of Pillow's about odd metadata or large images: what matters becomes an error.

    Warning filters belong to the process. The first of several threads takes them away and the last puts them
    back, so who starts threads that read should be quiet around them.
    """
    mine = _quiet
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
        errno.ELOOP: "a symbolic link that goes round",
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


def _layout(path: Path) -> Layout | None:
    with contextlib.suppress(OSError), open_regular(path) as file:
        return tiff_layout(file)
    return None


def _what_it_is(path: Path) -> str:
    """Why no decoder wanted a file, as far as its first bytes tell."""
    try:
        with open_regular(path) as file:
            head = file.read(512)
    except OSError:
        head = b""
    if head.startswith(TIFF) and (layout := _layout(path)) is not None:
        by_bands = f", or read all its bands with model.in_channels: {layout.bands}"
        return (
            f"a TIFF file of {layout.bands} bands of {layout.bits} bits, which is none of the kinds that are "
            "read as colours: convert it to one with 1 or 3 bands of 8 bits"
            f"{by_bands if layout.bands > 3 else ''}"
        )
    if head.startswith(NPY):
        return "an array (.npy), which is read where model.in_channels, 4 or more, is its number of bands"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1"):
        return "a HEIC image, which Pillow does not read: convert it to JPEG"
    if head.lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<html", b"<!doc"):
        return "a text file (XML, SVG or HTML), not an image"
    if head.startswith(b"%!PS"):
        return "PostScript, which is a program: convert it to PNG"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut in two by the end of the bytes that were read is no fault.
        if error.start < len(head) - 3:
            return "not an image, or in no format that Pillow reads"
    return "a text file, not an image" if b"\0" not in head else "not an image"
