"""The data sets that a recipe can name: ``digits``, which is installed, and ``hotdog``, which is fetched.

And drawn images, for runs that only show that everything fits together.
"""

import colorsys
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from finetune.data.cache.folder import VARIABLE, cache_folder
from finetune.data.keys import key
from finetune.data.sources.archives import unpack
from finetune.data.sources.dataset import Source, Split
from finetune.data.sources.download import check_sha1, fetch
from finetune.data.sources.folders import read_folder
from finetune.data.sources.images import ArrayImages
from finetune.errors import DataError
from finetune.recipe.catalog import DRAWN

log = logging.getLogger("finetune")

# Chapter 14.2 of "Dive into Deep Learning" (d2l.ai): 2,000 images to train on, 800 to test on.
HOTDOG_URL = "https://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip"
HOTDOG_SHA1 = "fba480ffa8aa7e0febbb511d181409f899b9baa5"


def read_known(name: str) -> Source:
    """One of the sets that :mod:`finetune.recipe.catalog` names.

    Raises:
        DataError: it has to be fetched and cannot be; the message says which file to put where.
    """
    readers: dict[str, Callable[[], Source]] = {
        "digits": read_digits,
        DRAWN: drawn_source,
        "hotdog": read_hotdog,
    }
    source = readers[name]()
    if Path(name).exists():
        note = f"{name} is the known set of that name; for the file or folder here write ./{name}"
        return dataclasses.replace(source, notes=(*source.notes, note))
    return source


def read_digits() -> Source:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, classes 0 to 9, no splits.

    The test part of UCI's "Optical Recognition of Handwritten Digits"; grey levels 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    classes = tuple(str(digit) for digit in range(10))
    split = Split(ArrayImages(pixels, "digits"), bunch.target.astype(np.int64))
    return Source("digits", classes, {"all": split})


def read_hotdog(
    *, url: str = HOTDOG_URL, sha1: str = HOTDOG_SHA1, schemes: tuple[str, ...] = ("https",)
) -> Source:
    """Hot dogs and other food, with the published train and test images.

    Looked for in :func:`finetune.data.cache.folder.cache_folder`: the folder ``hotdog``, else the archive
    ``hotdog.zip``, which is fetched if it is not there; its checksum is checked before it is unpacked.

    Raises:
        DataError: it cannot be fetched, is not the right file, or cannot be unpacked.
    """
    folder = cache_folder() / "hotdog"
    if not folder.is_dir():
        archive = folder.with_name("hotdog.zip")
        if archive.exists():
            check_sha1(archive, sha1)
        else:
            log.info("hotdog: fetching %s to %s", url, archive)
            try:
                fetch(url, archive, sha1, schemes=schemes, progress=_tenths("hotdog"))
            except DataError as error:
                raise DataError(
                    f"the data set hotdog cannot be fetched: {error}\n"
                    f"Get {url} (SHA-1 {sha1}) in another way and put it at {archive}; "
                    f"the environment variable {VARIABLE} names another folder to look in."
                ) from None
        unpack(archive, folder, member="hotdog")
    found = read_folder(folder)
    return dataclasses.replace(found, name="hotdog")


def drawn_source(num_classes: int = 3, per_class: int = 8, size: int = 64, seed: int = 0) -> Source:
    """Drawn images: each class has a colour and a shape; where it is and how large it is varies.

    ``per_class`` images of ``size`` x ``size`` pixels in train, half as many (at least two) in val and in
    test. The same arguments give the same pixels.
    """
    classes = tuple(f"drawn_{number}" for number in range(num_classes))
    splits = {}
    for split, count in (
        ("train", per_class),
        ("val", max(2, per_class // 2)),
        ("test", max(2, per_class // 2)),
    ):
        pixels = np.stack(
            [
                np.asarray(_drawn(label, num_classes, size, key(seed, split, label, number)))
                for label in range(num_classes)
                for number in range(count)
            ]
        )
        targets = np.repeat(np.arange(num_classes, dtype=np.int64), count)
        splits[split] = Split(ArrayImages(pixels, f"drawn/{split}"), targets)
    return Source("drawn images", classes, splits)


def in_pairs(source: Source) -> Source:
    """Drawn images that belong together, two of a class each, for recipes with groups."""
    splits, begun = {}, 0
    for name, split in source.splits.items():
        splits[name] = dataclasses.replace(split, groups=begun + np.arange(len(split), dtype=np.int64) // 2)
        begun += len(split)
    return dataclasses.replace(source, splits=splits)


def _drawn(label: int, num_classes: int, size: int, draw_key: int) -> Image.Image:
    rng = np.random.Generator(np.random.PCG64(draw_key))
    background = tuple(int(value) for value in rng.integers(200, 256, 3))
    image = Image.new("RGB", (size, size), background)
    red, green, blue = colorsys.hsv_to_rgb(label / num_classes, 0.9, 0.7)
    side = float(rng.uniform(0.4, 0.7)) * size
    left, top = (float(value) * (size - side) for value in rng.uniform(0.0, 1.0, 2))
    colour = (round(255 * red), round(255 * green), round(255 * blue))
    pen = ImageDraw.Draw(image)
    if label % 3 == 0:
        pen.ellipse((left, top, left + side, top + side), fill=colour)
    else:
        circle = (left + side / 2, top + side / 2, side / 2)
        pen.regular_polygon(circle, n_sides=5 - label % 3, rotation=int(rng.integers(0, 90)), fill=colour)
    return image


def _tenths(name: str) -> Callable[[int, int | None], None]:
    """Progress as a log line for each tenth."""
    told = 0

    def progress(arrived: int, total: int | None) -> None:
        nonlocal told
        if total and arrived * 10 // total > told:
            told = arrived * 10 // total
            log.info("%s: %d of %d MB", name, arrived >> 20, total >> 20)

    return progress
