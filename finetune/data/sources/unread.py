"""What is not read of a data set's pictures, from a look at the headers of a few."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.data.picture.images import read_image
from finetune.data.picture.unread import Unread, bands_of, unread, unread_frames
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, DataError

LOOKED_AT = 64
COLOURS = 3


def unread_notes(split: Split) -> list[str]:
    """A line for each thing that is not read of some pictures; none as a rule, and none without files."""
    looked_at, found = 0, Counter[Unread]()
    for path in _some_files(split):
        try:
            found.update(read_image(path, lambda image: (*unread(image), *unread_frames(image))))
        except BadImageError:
            continue  # told of when it is read
        looked_at += 1
    return [
        f"{count} of {looked_at} training pictures looked at have {left.message}"
        for left, count in found.most_common()
    ]


def refuse_other_bands(split: Split, in_channels: int) -> None:
    """Let nobody who asks for more channels than three take the repeated colours for a file's own bands.

    Raises:
        DataError: pictures have bands that are not read.
    """
    if in_channels <= COLOURS:
        return
    for path in _some_files(split):
        try:
            bands, read = read_image(path, _bands)
        except BadImageError:
            continue
        if bands > read:
            raise DataError(
                f"{path}: has {bands} bands, of which the first {read} are read; model.in_channels: "
                f"{in_channels} would repeat these, and not read the others. Bring the bands that matter "
                "into pictures of three, and leave in_channels out."
            )


def _bands(image: Image.Image) -> tuple[int, int]:
    return bands_of(image), len(image.getbands())


def _some_files(split: Split) -> list[Path]:
    places = np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split)), dtype=np.int64).tolist()
    paths = (Path(split.name(place)) for place in places)
    return [path for path in paths if path.is_file()]
