"""What is not read of a data set's images, from a look at the headers of a few."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from finetune.data.dataset import Split
from finetune.errors import BadImageError, DataError, printable
from finetune.image.bands import COLOURS, count_bands, is_tiff, require_tifffile
from finetune.image.decode import read_image
from finetune.image.unread import UnreadData, unread_data, unread_frames

LOOKED_AT = 64


def unread_notes(split: Split) -> list[str]:
    """A line for each thing that is not read of some images; none as a rule, and none without files."""
    looked_at, found = 0, Counter[UnreadData]()
    for path in sample_files(split):
        try:
            found.update(read_image(path, lambda image: (*unread_data(image), *unread_frames(image))))
        except BadImageError:
            continue  # told of when it is read
        looked_at += 1
    return [
        f"{count} of {looked_at} training images looked at have {left.message}"
        for left, count in found.most_common()
    ]


def sample_files(split: Split) -> list[Path]:
    """Up to :data:`LOOKED_AT` files of a split, spread over it; none where images are no files."""
    places = np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split)), dtype=np.int64).tolist()
    names = (split.name(place) for place in places)
    # A Path's own is_file raises in a folder that may not be looked into; reading tells of that.
    return [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113


def has_own_bands(split: Split, in_channels: int, *, skips: bool = False) -> bool:
    """Whether the files have ``in_channels`` bands each, beyond three; from a look at the headers of some.

    Files of colours have none: with more channels than three, these repeat. What none of the files looked at
    has is an error when it is read.

    Args:
        skips: files that cannot be read as the others are left out, and counted, when it comes to that.

    Raises:
        DataError: files have other bands than ``in_channels``, not as many each, or are arrays and
            ``in_channels`` is not beyond three.
        MissingExtraError: there are bands to be read, and what reads them is not installed.
    """
    paths = sample_files(split)
    if in_channels <= COLOURS:
        for path in paths:
            if path.suffix.lower() == ".npy":
                raise DataError(
                    f"{printable(path)}: an array (.npy). Arrays are read where model.in_channels, 4 or "
                    "more, is their "
                    f"number of bands; it is {in_channels}."
                )
        return False
    own, colours, tiffs = "", "", False
    faults: list[str] = []
    for path in paths:
        try:
            bands = count_bands(path, in_channels)
            tiffs = tiffs or is_tiff(path)
        except BadImageError as error:
            # What is no array may be damaged, which is told when it is read.
            if path.suffix.lower() == ".npy":
                faults.append(f"{error.name}: {error.reason}; model.in_channels is {in_channels}.")
            continue
        if bands <= COLOURS:
            colours = colours or str(path)
        elif bands == in_channels:
            own = own or str(path)
        else:
            faults.append(
                f"{printable(path)}: has {bands} bands; model.in_channels: {in_channels} reads files of "
                f"{in_channels} "
                f"bands, or repeats the colours of files that have no others. Set in_channels: {bands}, or 3 "
                "for the first three bands of files that can be read as colours."
            )
    if own and skips:
        faults, colours = [], ""
    if faults:
        raise DataError(faults[0])
    if own and colours:
        raise DataError(
            f"{own}: has {in_channels} bands, as model.in_channels asks for; {colours} has only colours. The "
            "files of one training have as many bands each: leave one kind out."
        )
    if own and tiffs:
        require_tifffile()
    return bool(own)
