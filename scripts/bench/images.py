"""The images that all contestants train on: a folder of splits and classes, laid out anew.

The data set itself is only read. Free of torch.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.data.batches.sampling import shuffled
from finetune.data.dataset import Source, Split
from finetune.data.holdout.splits import hold_out_splits
from finetune.data.sources.read import read_source
from finetune.errors import DataError

# Side of the images that growth is measured on: small, so that the network's share of the time is small.
THUMBNAIL = 48


def read_splits(source: str, seed: int) -> Source:
    """Read any `data.source`, and hold out val if it has no such split.

    Raises:
        DataError: it cannot be read or split.
    """
    return hold_out_splits(read_source(source), val_fraction=0.2, test_fraction=0.1, seed=seed)


def some(split: Split, count: int | None, seed: int) -> Split:
    """``count`` of a split's images, drawn with the seed, the first of every class among them."""
    if count is None or count >= len(split):
        return split
    order = shuffled(len(split), seed, 0)
    _, firsts = np.unique(split.targets[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), firsts)
    return split.subset(order[np.concatenate([firsts, rest])[: max(count, len(firsts))]])


def lay_out(source: Source, folder: Path, train: int | None, val: int | None, seed: int) -> dict[str, int]:
    """Write ``train`` and ``val`` into ``folder``, a folder per class. Returns their numbers of images.

    Files are linked to, images of other sources are written as PNG. A class is named by its number, so
    that every tool sorts them alike.

    Args:
        train, val: the largest number of images, at least one per class; None: all.

    Raises:
        DataError: an image cannot be read.
    """
    counts = {}
    for name, count in (("train", train), ("val", val)):
        split = some(source.splits[name], count, seed)
        counts[name] = len(split)
        for index, target in enumerate(split.targets.tolist()):
            original = Path(split.name(index))
            place = _place(folder / name, target, index)
            if original.is_file():
                place.with_suffix(original.suffix.lower()).symlink_to(original.resolve())
            else:
                split.open(index).save(place.with_suffix(".png"))
    return counts


def lay_out_copies(split: Split, folder: Path, images: int, classes: int) -> None:
    """Write ``images`` thumbnails in ``classes`` classes, and a val with two per class.

    Images repeat as often as needed. Each copy has other bytes, so no cache can recognize it. The classes
    have nothing to do with the content.
    """
    targets: npt.NDArray[np.int64] = np.arange(images) % classes
    thumbnails = []
    for index in range(min(images, len(split))):
        image = split.open(index)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        thumbnails.append(image)
    for name, count in (("train", images), ("val", 2 * classes)):
        for index in range(count):
            place = _place(folder / name, int(targets[index % images]), index).with_suffix(".jpg")
            thumbnails[index % len(thumbnails)].save(place, comment=f"{name} {index}")


def _place(folder: Path, target: int, index: int) -> Path:
    place = folder / f"class_{target:05}" / f"{index:07}"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def whole_batches(available: int, wanted: int, batch_size: int) -> int:
    """How many optimizer steps of whole batches an epoch has: ``wanted``, or as many as there are images.

    Raises:
        DataError: not one.
    """
    steps = min(wanted, available // batch_size)
    if not steps:
        raise DataError(
            f"{available} training images are no batch of {batch_size}: give a smaller --batch-size"
        )
    return steps
