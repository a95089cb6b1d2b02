"""Facts about each image: whether it can be read, its properties, and a thumbnail to compare it by."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.images import Images
from finetune.data.machine import cores
from finetune.data.processes.pool import ProcessPool, Wording
from finetune.data.processes.worker import Heartbeat
from finetune.disk.regular import open_regular
from finetune.errors import BadImageError
from finetune.image.decode import orientation, read_image, upright_rgb
from finetune.image.modes import is_transparent
from finetune.image.unread import UnreadData, unread_data, unread_frames

THUMB = 64
CHROMA = 4
# JPEGs are decoded at the smallest reduced size that is at least this: twice the thumbnail.
DRAFT = 2 * THUMB
# Channels that differ by at most this are grey; JPEG compression causes small differences.
GREY_TOLERANCE = 10
# For fewer images, starting processes takes longer than reading the images.
WORTH_PROCESSES = 400
CHUNK = 64


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one image.

    Attributes:
        name: its path, or its place in a set without files.
        fault: why it cannot be read; None if it can. If it cannot, only ``digest`` has a meaning.
        digest: of the file's bytes, or of the pixels if there is no file; empty if the file cannot be read.
        size: width and height in pixels, upright.
        format: Pillow's name of the format, such as JPEG; None without a file.
        is_grey: all channels agree.
        has_alpha: it has transparency.
        orientation: from EXIF; 1 is upright.
        thumb: ``THUMB`` x ``THUMB`` bytes of luma; the whole image, squashed to a square.
        unread: the contents of the file that training does not read.
        chroma: the colour at ``CHROMA`` x ``CHROMA`` positions: Cb and Cr, two bytes each.
    """

    name: str
    fault: str | None = None
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    format: str | None = None
    is_grey: bool = False
    has_alpha: bool = False
    orientation: int = 1
    thumb: bytes = b""
    chroma: bytes = b""
    unread: tuple[UnreadData, ...] = ()

    @property
    def luma(self) -> npt.NDArray[np.uint8]:
        """The thumbnail as an array: uint8, shape (THUMB, THUMB)."""
        return np.frombuffer(self.thumb, dtype=np.uint8).reshape(THUMB, THUMB)


@dataclass(frozen=True)
class Examined:
    """An image with its split (train, val, test or all) and its class."""

    facts: ImageFacts
    split: str
    label: str


def class_counts(classes: Sequence[str], examined: Sequence[Examined]) -> dict[str, dict[str, int]]:
    """Count the readable images of each class in each split."""
    counts = {split: dict.fromkeys(classes, 0) for split in dict.fromkeys(each.split for each in examined)}
    for each in examined:
        if not each.facts.fault:
            counts[each.split][each.label] += 1
    return counts


def read_facts(images: Images, index: int) -> ImageFacts:
    """Read the facts of image ``index``. An image that cannot be read gets a ``fault``; nothing is raised."""
    name = images.name(index)
    path = Path(name)
    try:
        if path.is_absolute() or os.path.exists(name):  # noqa: PTH110  (a Path raises on odd names)
            facts = read_image(path, lambda image: _facts_of(image, name))
            return dataclasses.replace(facts, digest=_digest_of_file(path))
        # Not a file: a set in memory or from torchvision.
        image = images.open(index)
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        return dataclasses.replace(_facts_of(image, name), digest=digest)
    except BadImageError as error:
        return ImageFacts(name, fault=error.reason, digest=_digest_of_file(path))


def read_all_facts(images: Images, processes: int | None = None) -> Iterator[ImageFacts]:
    """Read the facts of all images, in order, with ``processes`` (None: one per core)."""
    count = len(images)
    processes = cores() if processes is None else processes
    if processes < 2 or count < WORTH_PROCESSES:
        yield from (read_facts(images, index) for index in range(count))
        return
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPool(
        functools.partial(_facts_of_chunk, images),
        processes,
        Wording(
            "a process that examines images",
            "Allow more memory or more open files (`ulimit -n`) to use such processes.",
        ),
        # Spawned, not forked: the caller may have threads.
        method="spawn",
    ) as started:
        for found in started.results(chunks):
            yield from found


def _facts_of(image: Image.Image, name: str) -> ImageFacts:
    turned = orientation(image)
    width, height = image.size
    if turned in (5, 6, 7, 8):
        width, height = height, width
    found, left = image.format, unread_data(image)
    image.draft(None, (DRAFT, DRAFT))
    rgb = upright_rgb(image)
    transparent = is_transparent(image)
    small = rgb.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(small, dtype=np.int16)
    spread = int((pixels.max(axis=2) - pixels.min(axis=2)).max())
    luma, *colours = small.convert("YCbCr").split()
    chroma = [np.asarray(each.resize((CHROMA, CHROMA), Image.Resampling.BOX)) for each in colours]
    return ImageFacts(
        name,
        size=(width, height),
        format=found,
        is_grey=spread <= GREY_TOLERANCE,
        has_alpha=transparent,
        orientation=turned,
        thumb=luma.tobytes(),
        chroma=np.stack(chroma, axis=2).tobytes(),
        unread=(*left, *unread_frames(image)),
    )


def _digest_of_file(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except (OSError, ValueError):
        return b""


def _facts_of_chunk(images: Images, indices: range, heartbeat: Heartbeat) -> list[ImageFacts]:
    found = []
    for index in indices:
        found.append(read_facts(images, index))
        heartbeat()
    return found
