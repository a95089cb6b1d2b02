"""Sequences of images, wherever they come from: files, arrays in memory, torchvision data sets."""

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

# The coarsest clock of a file system: FAT counts two seconds.
JUST_NOW_NS = 2_000_000_000


class Images(Protocol):
    """Images by number. Picklable, so that loader processes can be started in any way."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may open images at once."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages and tables call the image: its path, where it has one."""
        ...

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        """The image, 8-bit RGB; with ``shorter`` perhaps decoded at a smaller size, its shorter side no
        less than that.

        Raises:
            BadImageError: it cannot be read.
        """
        ...

    def path(self, index: int) -> Path | None:
        """The file that it is; None where it is none."""
        ...

    def digest(self, index: int) -> bytes:
        """SHA-256 of what the image is made of: its file's bytes, or its pixels where it has no file.

        Raises:
            BadImageError: it cannot be read.
        """
        ...

    def stamp(self, index: int) -> bytes | None:
        """32 bytes that are others once the image's file is changed or replaced, without reading it.

        None where that cannot be told: there is no file, or it was changed just now.
        """
        ...


class FileImages:
    """Files. A million paths take one block of memory, which loader processes share without copying."""

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
        # A file that changes twice within a tick of its file system's clock has the same times after both.
        if not stat.S_ISREG(status.st_mode) or time.time_ns() - status.st_ctime_ns < JUST_NOW_NS:
            return None
        facts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        path = os.fsencode(os.path.abspath(name))  # noqa: PTH100
        return hashlib.blake2b(path + repr(facts).encode(), digest_size=32).digest()


class ArrayImages:
    """Images in memory: uint8, shape (N, height, width) for grey or (N, height, width, 3) for RGB.

    Image 12 is called ``<prefix>/12``.
    """

    thread_safe = True

    def __init__(self, pixels: npt.NDArray[np.uint8], prefix: str) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[3:] not in ((), (3,)):
            raise ValueError(f"uint8 (N, H, W) or (N, H, W, 3) is needed, not {pixels.dtype} {pixels.shape}")
        self._pixels = pixels
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self._pixels)

    def name(self, index: int) -> str:
        return f"{self._prefix}/{index}"

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        return to_rgb(Image.fromarray(self._pixels[index]))

    def path(self, index: int) -> Path | None:
        return None

    def digest(self, index: int) -> bytes:
        return _digest_of_pixels(self.open(index))

    def stamp(self, index: int) -> bytes | None:
        return None


class TorchvisionImages:
    """A torchvision data set whose items start with a PIL image, for sets without files or arrays.

    Image 12 is called ``<prefix>/12``.
    """

    # Someone else's code, which may move about in one open file.
    thread_safe = False

    def __init__(self, dataset: Any, prefix: str) -> None:
        self._dataset = dataset
        self._prefix = prefix

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        return f"{self._prefix}/{index}"

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        try:
            image = self._dataset[index][0]
            if not isinstance(image, Image.Image):
                raise TypeError(f"a {type(image).__name__} instead of an image")
            return upright_rgb(image)
        except Exception as error:
            # What goes wrong inside of someone else's data set can be anything.
            text = printable(" ".join(str(error).split()))[:120]
            raise BadImageError(self.name(index), f"{type(error).__name__}: {text}") from None

    def path(self, index: int) -> Path | None:
        return None

    def digest(self, index: int) -> bytes:
        return _digest_of_pixels(self.open(index))

    def stamp(self, index: int) -> bytes | None:
        return None


class SelectedImages:
    """Those of ``images`` that ``indices`` (int64) names, in that order."""

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
    """The images of ``parts``, one after the other."""

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
    """Those of ``images`` that ``indices`` names; a selection of a selection stays one step deep."""
    wanted = np.asarray(indices, dtype=np.int64)
    if isinstance(images, SelectedImages):
        return SelectedImages(images._images, images._indices[wanted])
    return SelectedImages(images, wanted)


def _digest_of_pixels(image: Image.Image) -> bytes:
    return hashlib.sha256(f"{image.mode} {image.size}\n".encode() + image.tobytes()).digest()
