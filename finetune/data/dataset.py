"""A data set as it was found: splits of images with their classes, and what all that read one share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.identity import relative_name
from finetune.data.images import Images, JoinedImages, select_images
from finetune.errors import BadImageError, printable
from finetune.image.bands import COLOURS, open_image
from finetune.image.pixels import ImageOrBands

# Beyond so many names, a message shows the first and counts the rest.
NAMES_SHOWN = 20


@dataclass(frozen=True)
class SourceOptions:
    """How a folder or a table is to be read, where a user says so.

    Attributes:
        as_classes: every folder in the folder is a class, whatever its name and whatever is in it.
        split_column: of a table, the column that tells the split; "none": none does; None: to be found.
        group_column: of a table, the column that tells the group; it is used, but not here.
    """

    as_classes: bool = False
    split_column: str | None = None
    group_column: str | None = None


DEFAULT_OPTIONS = SourceOptions()


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their classes: ``targets`` is int64, shape (N,), each in 0..num_classes-1.

    ``groups``, where images belong together in groups, says to which each does; int64, shape (N,).
    """

    images: Images
    targets: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.targets):
            raise ValueError(f"{len(self.images)} images, but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, index: int) -> str:
        """What messages call image ``index``."""
        return self.images.name(index)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        """Image ``index`` as RGB, as :meth:`Images.open`; BadImageError if it cannot be read."""
        return self.images.open(index, shorter)

    def image(self, index: int, bands: int | None = None, shorter: int | None = None) -> ImageOrBands:
        """Image ``index`` the way a network reads it, as
        :func:`~finetune.image.bands.open_image`; BadImageError if that cannot be."""
        if bands is None:
            return self.open(index, shorter)
        path = self.images.path(index)
        if path is not None:
            return open_image(path, bands, shorter)
        if bands > COLOURS:
            raise BadImageError(self.name(index), f"no file; {bands} bands are read from TIFF and .npy files")
        return self.open(index, shorter)

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may open images at once."""
        return self.images.thread_safe

    def digest(self, index: int) -> bytes:
        """SHA-256 of what image ``index`` is made of; BadImageError if it cannot be read."""
        return self.images.digest(index)

    def stamp(self, index: int) -> bytes | None:
        """What changes with the file of image ``index``, as :meth:`Images.stamp`."""
        return self.images.stamp(index)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The images that ``indices`` names, in that order."""
        wanted = np.asarray(indices, dtype=np.int64)
        groups = None if self.groups is None else self.groups[wanted]
        return Split(select_images(self.images, wanted), self.targets[wanted], groups)

    def class_counts(self, num_classes: int) -> npt.NDArray[np.int64]:
        """How many images each class has; int64, shape (num_classes,)."""
        return np.bincount(self.targets, minlength=num_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it was found.

    ``splits`` has keys among train, val and test, or the one key all where the source has no splits.
    ``notes`` are remarks for the user. ``root`` is the folder that the images' names are relative to, where
    there is one: the folder given, or that of the CSV file.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()
    root: str | None = None

    def relative(self, name: str) -> str:
        """What an image of this source is called wherever the source lies; ``name`` is its own."""
        return relative_name(name, self.root)


def merge_splits(source: Source) -> Split:
    """All images of a source in one, split after split."""
    splits = list(source.splits.values())
    if len(splits) == 1:
        return splits[0]
    groups = [split.groups for split in splits if split.groups is not None]
    return Split(
        JoinedImages([split.images for split in splits]),
        np.concatenate([split.targets for split in splits]),
        np.concatenate(groups) if groups else None,
    )


def quoted(names: Sequence[str]) -> str:
    """Names for a message, quoted; beyond ``NAMES_SHOWN`` the rest is counted."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
