"""Checks of a data set from the headers of a sample of its files: unread content, and bands."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from finetune.data.dataset import Split
from finetune.errors import BadImageError, DataError, printable
from finetune.image.bands import COLOURS, count_bands, is_tiff, require_tifffile
from finetune.image.decode import read_image
from finetune.image.unread import UnreadData, unread_data, unread_frames

SAMPLE_SIZE = 64


def unread_notes(split: Split) -> list[str]:
    """One line for each kind of content that is ignored, such as extra bands or frames. Usually empty."""
    sampled, found = 0, Counter[UnreadData]()
    for path in sample_files(split):
        try:
            found.update(read_image(path, lambda image: (*unread_data(image), *unread_frames(image))))
        except BadImageError:
            continue  # The error is reported when the image is read.
        sampled += 1
    return [
        f"{count} of {sampled} sampled training images have {left.message}"
        for left, count in found.most_common()
    ]


def sample_files(split: Split) -> list[Path]:
    """Up to :data:`SAMPLE_SIZE` files, spread evenly over a split; empty if its images are not files."""
    places = np.linspace(0, len(split) - 1, min(SAMPLE_SIZE, len(split)), dtype=np.int64).tolist()
    names = (split.name(place) for place in places)
    # Path.is_file raises if its folder cannot be read. Reading the image reports that error.
    return [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113


def has_own_bands(split: Split, in_channels: int, *, skips: bool = False) -> bool:
    """Whether the sampled files have ``in_channels`` bands each, with ``in_channels`` above three.

    If they are colour images instead, their colours are repeated to fill the channels. A file outside the
    sample that differs is an error when it is read.

    Args:
        skips: unreadable files are skipped and counted later, so they are no error here.

    Raises:
        DataError: the number of bands differs from ``in_channels`` or between files; or files are arrays and
            ``in_channels`` is at most three.
        MissingExtraError: the package that reads the bands is not installed.
    """
    paths = sample_files(split)
    if in_channels <= COLOURS:
        for path in paths:
            if path.suffix.lower() == ".npy":
                raise DataError(
                    f"{printable(path)}: an array (.npy). Set model.in_channels to its number of bands (4 or "
                    f"more); it is {in_channels}."
                )
        return False
    own, colours, fault, tiffs = "", "", "", False
    for path in paths:
        try:
            bands = count_bands(path, in_channels)
            tiffs = tiffs or is_tiff(path)
        except BadImageError as error:
            # Other damaged files are reported when they are read.
            if path.suffix.lower() == ".npy":
                fault = fault or f"{error.name}: {error.reason}; model.in_channels is {in_channels}."
            continue
        if bands <= COLOURS:
            colours = colours or str(path)
        elif bands == in_channels:
            own = own or str(path)
        else:
            fault = fault or (
                f"{printable(path)}: has {bands} bands, but model.in_channels is {in_channels}. Set "
                f"in_channels: {bands}, or 3 to read the first three bands as colours."
            )
    if own and skips:
        fault = colours = ""
    if fault:
        raise DataError(fault)
    if own and colours:
        raise DataError(
            f"{own}: has {in_channels} bands, as model.in_channels requires, but {colours} has only colours. "
            "All files must have the same number of bands. Remove one kind."
        )
    if own and tiffs:
        require_tifffile()
    return bool(own)
