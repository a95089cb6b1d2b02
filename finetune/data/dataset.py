"""Data sets as read from a source: splits of images with class labels."""

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

# A message shows at most this many names and counts the others.
NAMES_SHOWN = 20


@dataclass(frozen=True)
class SourceOptions:
    """The user's choices for reading a folder or a CSV file.

    Attributes:
        as_classes: every subfolder is a class, whatever its name or content.
        split_column: the CSV column that holds the split; "none": no column does; None: detect it.
        group_column: the CSV column that holds the group. It is not detected as a split column.
    """

    as_classes: bool = False
    split_column: str | None = None
    group_column: str | None = None


DEFAULT_OPTIONS = SourceOptions()


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their classes.

    Attributes:
        images: N images.
        targets: the class of each image, int64, shape (N,), in 0..num_classes-1.
        groups: the group of each image, int64, shape (N,); None if images have no groups.
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
        """The name of image ``index`` in messages: its path, if it has one."""
        return self.images.name(index)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        """Image ``index`` as 8-bit RGB; see :meth:`Images.open`."""
        return self.images.open(index, shorter)

    def image(self, index: int, bands: int | None = None, shorter: int | None = None) -> ImageOrBands:
        """Image ``index`` as a network reads it; see :func:`~finetune.image.bands.open_image`.

        Raises:
            BadImageError: it cannot be read, or does not have the requested bands.
        """
        if bands is None:
            return self.open(index, shorter)
        path = self.images.path(index)
        if path is not None:
            return open_image(path, bands, shorter)
        if bands > COLOURS:
            reason = f"not a file; images with {bands} bands must be TIFF or .npy files"
            raise BadImageError(self.name(index), reason)
        return self.open(index, shorter)

    @property
    def thread_safe(self) -> bool:
        """Whether several threads may open images at the same time."""
        return self.images.thread_safe

    def digest(self, index: int) -> bytes:
        """SHA-256 of image ``index``; see :meth:`Images.digest`."""
        return self.images.digest(index)

    def stamp(self, index: int) -> bytes | None:
        """A stamp that changes with the file of image ``index``; see :meth:`Images.stamp`."""
        return self.images.stamp(index)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The images at ``indices``, in that order."""
        wanted = np.asarray(indices, dtype=np.int64)
        groups = None if self.groups is None else self.groups[wanted]
        return Split(select_images(self.images, wanted), self.targets[wanted], groups)

    def class_counts(self, num_classes: int) -> npt.NDArray[np.int64]:
        """The number of images per class; int64, shape (num_classes,)."""
        return np.bincount(self.targets, minlength=num_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set.

    Attributes:
        name: the source as messages call it.
        classes: class names; targets are indices into this tuple.
        splits: the keys are among train, val and test. A source without splits has the one key ``all``.
        notes: remarks for the user.
        root: the folder that image names are relative to: the source folder, or the folder of the CSV file.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()
    root: str | None = None

    def relative(self, name: str) -> str:
        """``name`` relative to ``root``, so that it is the same wherever the source is stored."""
        return relative_name(name, self.root)


def merge_splits(source: Source) -> Split:
    """All images of a source as one split, in the order of its splits."""
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
    """The names in quotes, for a message; at most ``NAMES_SHOWN`` of them, then the number of others."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
