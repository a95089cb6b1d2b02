"""Sequences of images: files, arrays in memory and torchvision data sets, behind one protocol.

To support another storage (tar or Parquet shards, for example), implement :class:`Images`.
"""

import abc
import hashlib
import os
import stat
import time
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.disk.regular import open_regular
from finetune.errors import BadImageError, is_out_of_files, printable
from finetune.image.decode import open_rgb, upright_rgb
from finetune.image.modes import to_rgb

# The coarsest file system clock: FAT stores times in steps of two seconds.
JUST_NOW_NS = 2_000_000_000


class Images(Protocol):
    """A sequence of images. Implementations are picklable, because loader processes receive them."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may open images at the same time."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The name of an image in messages and tables: its path, if it has one."""
        ...

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        """The image as 8-bit RGB.

        Args:
            shorter: the image may be decoded at a reduced size whose shorter side is at least this.

        Raises:
            BadImageError: the image cannot be read.
        """
        ...

    def path(self, index: int) -> Path | None:
        """The path of the image's file; None if it is not a file."""
        ...

    def digest(self, index: int) -> bytes:
        """SHA-256 of the image's file, or of its pixels if it is not a file.

        Raises:
            BadImageError: the image cannot be read.
        """
        ...

    def stamp(self, index: int) -> bytes | None:
        """32 bytes that change if the image's file is changed or replaced. The file is not read.

        None if a change could go unnoticed: the image is not a file, or its file changed in the last two
        seconds.
        """
        ...


class FileImages:
    """Image files. All paths are in one block of memory, which forked loader processes share."""

    thread_safe = True

    def __init__(self, paths: Iterable[str | Path]) -> None:
        names, ends = bytearray(), array("q")
        for path in paths:
            names += os.fsencode(path)
            ends.append(len(names))
        self._names = bytes(names)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._names[start : int(self._ends[index])])

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        return open_rgb(Path(self.name(index)), shorter)

    def path(self, index: int) -> Path | None:
        return Path(self.name(index))

    def digest(self, index: int) -> bytes:
        try:
            with open_regular(Path(self.name(index))) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            if is_out_of_files(error):
                raise
            raise BadImageError(self.name(index), error.strerror or str(error)) from None

    def stamp(self, index: int) -> bytes | None:
        name = self.name(index)
        try:
            status = os.stat(name)  # noqa: PTH116
        except (OSError, ValueError):
            return None
        # A file that changes twice within one tick of the file system's clock keeps the same times.
        if not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_ctime_ns < JUST_NOW_NS:
            return None
        facts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        path = os.fsencode(os.path.abspath(name))  # noqa: PTH100
        return hashlib.blake2b(path + repr(facts).encode(), digest_size=32).digest()


class _ImagesWithoutFiles(abc.ABC):
    """Images that are not files. Their names are ``<prefix>/0``, ``<prefix>/1``, ..."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @abc.abstractmethod
    def open(self, index: int, shorter: int | None = None) -> Image.Image: ...

    def name(self, index: int) -> str:
        return f"{self._prefix}/{index}"

    def path(self, index: int) -> Path | None:
        return None

    def digest(self, index: int) -> bytes:
        return _digest_of_pixels(self.open(index))

    def stamp(self, index: int) -> bytes | None:
        return None


class ArrayImages(_ImagesWithoutFiles):
    """Images in memory: uint8, shape (N, height, width) for grey or (N, height, width, 3) for RGB.

    The name of image 12 is ``<prefix>/12``.
    """

    thread_safe = True

    def __init__(self, pixels: npt.NDArray[np.uint8], prefix: str) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[3:] not in ((), (3,)):
            raise ValueError(f"not uint8 (N, H, W) or (N, H, W, 3): {pixels.dtype} {pixels.shape}")
        super().__init__(prefix)
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        return to_rgb(Image.fromarray(self._pixels[index]))


class TorchvisionImages(_ImagesWithoutFiles):
    """A torchvision data set whose items begin with a Pillow image, for sets without files or arrays.

    The name of image 12 is ``<prefix>/12``.
    """

    # Torchvision may seek in one shared open file.
    thread_safe = False

    def __init__(self, dataset: Any, prefix: str) -> None:
        super().__init__(prefix)
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        try:
            image = self._dataset[index][0]
            if not isinstance(image, Image.Image):
                raise TypeError(f"a {type(image).__name__} instead of an image")
            return upright_rgb(image)
        except Exception as error:
            # A foreign data set can raise any exception.
            text = printable(" ".join(str(error).split()))[:120]
            raise BadImageError(self.name(index), f"{type(error).__name__}: {text}") from None


class SelectedImages:
    """The images at ``indices`` (int64) of another sequence, in that order."""

    def __init__(self, images: Images, indices: npt.NDArray[np.int64]) -> None:
        self._images = images
        self._indices = indices

    @property
    def thread_safe(self) -> bool:
        return self._images.thread_safe

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._images.name(int(self._indices[index]))

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        return self._images.open(int(self._indices[index]), shorter)

    def path(self, index: int) -> Path | None:
        return self._images.path(int(self._indices[index]))

    def digest(self, index: int) -> bytes:
        return self._images.digest(int(self._indices[index]))

    def stamp(self, index: int) -> bytes | None:
        return self._images.stamp(int(self._indices[index]))


class JoinedImages:
    """Several sequences of images, one after another."""

    def __init__(self, parts: Sequence[Images]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    @property
    def thread_safe(self) -> bool:
        return all(part.thread_safe for part in self._parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        part, place = self._find(index)
        return part.name(place)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        part, place = self._find(index)
        return part.open(place, shorter)

    def path(self, index: int) -> Path | None:
        part, place = self._find(index)
        return part.path(place)

    def digest(self, index: int) -> bytes:
        part, place = self._find(index)
        return part.digest(place)

    def stamp(self, index: int) -> bytes | None:
        part, place = self._find(index)
        return part.stamp(place)

    def _find(self, index: int) -> tuple[Images, int]:
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[which], index - (int(self._ends[which - 1]) if which else 0)


def select_images(images: Images, indices: Sequence[int] | npt.NDArray[np.int64]) -> Images:
    """The images at ``indices``. Selecting from a selection does not nest."""
    wanted = np.asarray(indices, dtype=np.int64)
    if isinstance(images, SelectedImages):
        return SelectedImages(images._images, images._indices[wanted])
    return SelectedImages(images, wanted)


def _digest_of_pixels(image: Image.Image) -> bytes:
    return hashlib.sha256(f"{image.mode} {image.size}\n".encode() + image.tobytes()).digest()
