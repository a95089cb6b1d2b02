"""Known data sets: ``digits``, which scikit-learn contains, and ``hotdog``, which is downloaded."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from finetune.data.cache.contents import VARIABLE, cache_folder
from finetune.data.dataset import Source, Split
from finetune.data.images import ArrayImages
from finetune.data.sources.folders.read import read_folder
from finetune.data.sources.named.archives import unpack
from finetune.data.sources.named.download import check_sha1, fetch
from finetune.data.sources.named.drawn import draw_source
from finetune.errors import DataError
from finetune.recipe.catalog import DRAWN

log = logging.getLogger("finetune")

# Chapter 14.2 of "Dive into Deep Learning" (d2l.ai): 2,000 images to train on, 800 to test on.
HOTDOG_URL = "https://d2l-data.s3-accelerate.amazonaws.com/hotdog.zip"
HOTDOG_SHA1 = "fba480ffa8aa7e0febbb511d181409f899b9baa5"


def read_known(name: str) -> Source:
    """Read a set that :mod:`finetune.recipe.catalog` names.

    Raises:
        DataError: the set cannot be downloaded. The message says which file to put where.
    """
    readers: dict[str, Callable[[], Source]] = {
        "digits": read_digits,
        DRAWN: draw_source,
        "hotdog": read_hotdog,
    }
    source = readers[name]()
    if Path(name).exists():
        note = f"reading the known set {name}; to read the file or folder of that name, write ./{name}"
        return dataclasses.replace(source, notes=(*source.notes, note))
    return source


def read_digits() -> Source:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, classes 0 to 9, no splits.

    This is the test split of UCI's "Optical Recognition of Handwritten Digits". Grey levels 0..16 are scaled
    to 0..255.
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
    """Hot dogs and other food, with the published train and test splits.

    Reads the folder ``hotdog`` in :func:`~finetune.data.cache.contents.cache_folder`. If it is missing,
    unpacks the archive ``hotdog.zip`` from there, or downloads it first. The checksum is checked before
    unpacking.

    Raises:
        DataError: the archive cannot be downloaded or unpacked, or is not the right file.
    """
    folder = cache_folder() / "hotdog"
    if not folder.is_dir():
        archive = folder.with_name("hotdog.zip")
        if archive.exists():
            check_sha1(archive, sha1)
        else:
            log.info("hotdog: downloading %s to %s", url, archive)
            try:
                fetch(url, archive, sha1, schemes=schemes, progress=_log_tenths("hotdog"))
            except DataError as error:
                raise DataError(
                    f"the data set hotdog cannot be downloaded: {error}\n"
                    f"Download {url} (SHA-1 {sha1}) in another way and save it as {archive}. The environment "
                    f"variable {VARIABLE} selects another cache folder."
                ) from None
        unpack(archive, folder, member="hotdog")
    found = read_folder(folder)
    return dataclasses.replace(found, name="hotdog")


def _log_tenths(name: str) -> Callable[[int, int | None], None]:
    """A progress callback that logs one line per tenth of the download."""
    logged = 0

    def progress(arrived: int, total: int | None) -> None:
        nonlocal logged
        if total and arrived * 10 // total > logged:
            logged = arrived * 10 // total
            log.info("%s: %d of %d MB", name, arrived >> 20, total >> 20)

    return progress
