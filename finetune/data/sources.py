"""What a recipe's ``data.source`` may be, and what reading one gives."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.pictures import FilePictures, Pictures, selected
from finetune.errors import DataError, printable
from finetune.recipe.catalog import KNOWN_SETS, suggest

TORCHVISION_PREFIX = "torchvision:"
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
# Beyond so many names, a message shows the first and counts the rest.
NAMES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures with their classes: ``targets`` is int64, shape (N,), each in 0..num_classes-1.

    ``groups``, where pictures belong together in groups, says to which each does; int64, shape (N,).
    """

    pictures: Pictures
    targets: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.targets):
            raise ValueError(f"{len(self.pictures)} pictures, but {len(self.targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, index: int) -> str:
        """What messages call picture ``index``."""
        return self.pictures.name(index)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        """Picture ``index`` as RGB, as :meth:`Pictures.open`; BadImageError if it cannot be read."""
        return self.pictures.open(index, shorter)

    @property
    def in_threads(self) -> bool:
        """Whether several threads may open pictures at once."""
        return self.pictures.in_threads

    def digest(self, index: int) -> bytes:
        """SHA-256 of what picture ``index`` is made of; BadImageError if it cannot be read."""
        return self.pictures.digest(index)

    def stamp(self, index: int) -> bytes | None:
        """What changes with the file of picture ``index``, as :meth:`Pictures.stamp`."""
        return self.pictures.stamp(index)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Split":
        """The pictures that ``indices`` names, in that order."""
        wanted = np.asarray(indices, dtype=np.int64)
        groups = None if self.groups is None else self.groups[wanted]
        return Split(selected(self.pictures, wanted), self.targets[wanted], groups)

    def class_counts(self, num_classes: int) -> npt.NDArray[np.int64]:
        """How many pictures each class has; int64, shape (num_classes,)."""
        return np.bincount(self.targets, minlength=num_classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it was found.

    ``splits`` has keys among train, val and test, or the one key all where the source has no splits.
    ``notes`` are remarks for the user.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()


def read_source(source: str) -> Source:
    """Read what a recipe's ``data.source`` names: a known set, ``torchvision:NAME``, a folder, or a CSV file.

    Raises:
        DataError: there is no such thing, or it does not make a data set; the message says why.
    """
    # The readers stand on this module, and torchvision is loaded only by who asks for its sets.
    from finetune.data.folders import read_folder
    from finetune.data.known import read_known
    from finetune.data.tables import read_table

    if source.startswith(TORCHVISION_PREFIX):
        from finetune.data.torchvision_sets import read_torchvision

        return read_torchvision(source.removeprefix(TORCHVISION_PREFIX))
    if source in KNOWN_SETS:
        return read_known(source)
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return read_folder(path)
        if path.is_file():
            if path.suffix.lower() in ARCHIVES:
                raise DataError(f"{printable(source)}: an archive. Unpack it and give the folder.")
            return read_table(path)
        # What is there, but neither folder nor file, raises no error here.
        path.stat()
    except FileNotFoundError:
        raise DataError(_no_such(source)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{printable(source)}: {getattr(error, 'strerror', None) or error}") from None
    raise DataError(f"{printable(source)}: neither a folder nor a CSV file")


def source_of_files(
    name: str, found: Mapping[str, Mapping[str, Sequence[str]]], notes: Sequence[str]
) -> Source:
    """Build a Source from ``found``: split -> class -> paths. Classes and paths are sorted by name.

    The classes are those of train (or of all).

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
        splits[split] = Split(FilePictures(paths), targets)
    return Source(name, classes, splits, tuple(notes))


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
                "Names must be the same, letter by letter. Rename them, or leave those pictures out."
            )
        if absent := sorted(trained - present):
            notes.append(f"{split} has no pictures of {listed(absent)}; its numbers say nothing of them")
    return notes


def is_class_name(name: str) -> bool:
    """Whether a class can be called so: something to see, on one line, that UTF-8 can write."""
    unfit = {"Cc", "Cs", "Zl", "Zp"}
    return bool(name.strip()) and not any(unicodedata.category(char) in unfit for char in name)


def listed(names: Sequence[str]) -> str:
    """Names for a message, quoted; beyond ``NAMES_SHOWN`` the rest is counted."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def _no_such(source: str) -> str:
    looked_at = Path(source).expanduser().absolute()
    hint = suggest(looked_at.name, [*_names(looked_at.parent), *([] if "/" in source else KNOWN_SETS)])
    return (
        f"{printable(source)}: no such file or folder (looked at {printable(str(looked_at))}).{hint} "
        f"A source is a folder, a CSV file, a known set ({', '.join(KNOWN_SETS)}) "
        f"or a torchvision set ({TORCHVISION_PREFIX}CIFAR10)."
    )


def _names(folder: Path) -> list[str]:
    """What there is in a folder, as far as it can be seen."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
