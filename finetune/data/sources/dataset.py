"""A data set as it was found: splits of images with their classes, and what all that read one share."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.identity import relative_name
from finetune.data.sources.class_names import lookalikes
from finetune.data.sources.images import FileImages, Images, JoinedImages, selected
from finetune.errors import BadImageError, DataError, printable
from finetune.image.bands import COLOURS, open_image
from finetune.image.threes import ImageOrBands
from finetune.recipe.catalog import suggest

# Beyond so many names, a message shows the first and counts the rest.
NAMES_SHOWN = 20


@dataclass(frozen=True)
class Reading:
    """How a folder or a table is to be read, where a user says so.

    Attributes:
        as_classes: every folder in the folder is a class, whatever its name and whatever is in it.
        split_column: of a table, the column that tells the split; "none": none does; None: to be found.
        group_column: of a table, the column that tells the group; it is used, but not here.
    """

    as_classes: bool = False
    split_column: str | None = None
    group_column: str | None = None


AS_FOUND = Reading()


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
    def in_threads(self) -> bool:
        """Whether several threads may open images at once."""
        return self.images.in_threads

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
        return Split(selected(self.images, wanted), self.targets[wanted], groups)

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


def pooled(source: Source) -> Split:
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


def source_of_files(
    name: str, found: Mapping[str, Mapping[str, Sequence[str]]], notes: Sequence[str], root: str
) -> Source:
    """Build a Source from ``found``: split -> class -> paths. Classes and paths are sorted by name.

    The classes are those of train (or of all). ``root`` is the folder that the paths are relative to.

    Raises:
        DataError: val or test has a class that train lacks.
    """
    leading = "all" if "all" in found else "train"
    classes = tuple(sorted(found[leading]))
    notes = [*notes, *compare_classes(name, {split: sorted(found[split]) for split in found})]
    splits = {}
    for split, of_class in found.items():
        paths: list[str] = []
        counts = []
        for class_name in classes:
            own = sorted(of_class.get(class_name, ()))
            paths.extend(own)
            counts.append(len(own))
        targets = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
        splits[split] = Split(FileImages(paths), targets)
    notes.extend(lookalike_notes(name, {each: len(found[leading][each]) for each in classes}))
    return Source(name, classes, splits, tuple(notes), root)


def lookalike_notes(name: str, counts: Mapping[str, int]) -> list[str]:
    """Notes on classes that may be one class, misspelt; ``counts`` is class -> images."""
    pairs = lookalikes(counts)
    notes = [
        f"{name}: the classes '{one}' ({counts[one]}) and '{other}' ({counts[other]}) differ {how}; if they "
        "are one class, give it one name"
        for one, other, how in pairs[:NAMES_SHOWN]
    ]
    if len(pairs) > NAMES_SHOWN:
        notes.append(f"{name}: {len(pairs) - NAMES_SHOWN} more pairs of classes have names that look alike")
    return notes


def compare_classes(name: str, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Notes on classes that val or test lacks; ``classes`` is split -> names.

    Raises:
        DataError: val or test has a class that train lacks.
    """
    notes = []
    for split in ("val", "test"):
        if split not in classes:
            continue
        trained, present = set(classes["train"]), set(classes[split])
        if unknown := sorted(present - trained):
            hints = "".join(dict.fromkeys(suggest(each, trained) for each in unknown[:3]))
            raise DataError(
                f"{name}: {split} has classes that train lacks, which no network could learn.{hints}\n"
                f"  only in {split}: {listed(unknown)}\n"
                f"  in train: {listed(sorted(trained))}\n"
                "Names must be the same, letter by letter. Rename them, or leave those images out."
            )
        if absent := sorted(trained - present):
            notes.append(f"{split} has no images of {listed(absent)}; its numbers say nothing of them")
    return notes


def is_class_name(name: str) -> bool:
    """Whether a class can be called so: something to see, on one line, that UTF-8 can write."""
    unfit = {"Cc", "Cs", "Zl", "Zp"}
    return bool(name.strip()) and not any(unicodedata.category(char) in unfit for char in name)


def listed(names: Sequence[str]) -> str:
    """Names for a message, quoted; beyond ``NAMES_SHOWN`` the rest is counted."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
