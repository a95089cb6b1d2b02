"""What is not read of a data set's images, from a look at the headers of a few."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError
from finetune.image.decode import read_image
from finetune.image.unread import Unread, unread, unread_frames

LOOKED_AT = 64


def unread_notes(split: Split) -> list[str]:
    """A line for each thing that is not read of some images; none as a rule, and none without files."""
    looked_at, found = 0, Counter[Unread]()
    for path in some_files(split):
        try:
            found.update(read_image(path, lambda image: (*unread(image), *unread_frames(image))))
        except BadImageError:
            continue  # told of when it is read
        looked_at += 1
    return [
        f"{count} of {looked_at} training images looked at have {left.message}"
        for left, count in found.most_common()
    ]


def some_files(split: Split) -> list[Path]:
    """Up to :data:`LOOKED_AT` files of a split, spread over it; none where images are no files."""
    places = np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split)), dtype=np.int64).tolist()
    names = (split.name(place) for place in places)
    # A Path's own is_file raises in a folder that may not be looked into; reading tells of that.
    return [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113
