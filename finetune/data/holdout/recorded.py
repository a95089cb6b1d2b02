"""The recorded splits of a run, and how to apply them to data that has changed since.

Splitting changed data anew could move training images to test. So a run records the split of each image, with
its name in the source and a digest of its file.
"""

import csv
import dataclasses
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from finetune.data.dataset import Source, Split, merge_splits, quoted
from finetune.data.identity import Scheme, file_digest, file_size, scheme_for
from finetune.errors import CheckpointError, printable

COLUMNS = ("split", "class", "path", "bytes")
SPLITS = ("train", "val", "test")
# Two data sets that share at least this fraction of images count as one that has changed.
SAME = 0.5
COMPARED = 200


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded image; ``size`` is None if it is not a file, ``digest`` empty if it was unreadable."""

    split: str
    class_name: str
    path: str
    size: int | None
    digest: str


@dataclass
class DataChanges:
    """Differences between the images of a source and those that were recorded.

    Attributes:
        missing: split -> names of images that no longer exist.
        changed: split -> names of images whose content changed, or whose class the run does not have.
        new: names of images that were not recorded.
        moved: the number of images with a new name. They count as the same images.
        relabelled: the number of images with a new class. They count as the same images with that class.
    """

    missing: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    moved: int = 0
    relabelled: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.new or self.relabelled)

    def lines(self) -> list[str]:
        """One line per kind of difference."""
        found = [
            f"{split}: {_images(len(names[split]))} {difference} ({_first(names[split])})"
            for split in SPLITS
            for difference, names in (("missing", self.missing), ("changed", self.changed))
            if split in names
        ]
        if self.new:
            found.append(f"{_images(len(self.new))} new ({_first(self.new)})")
        if self.relabelled:
            found.append(f"{_images(self.relabelled)} with another class than before")
        return found

    def counts(self) -> dict[str, int]:
        """The numbers of missing, changed and new images in all splits, for JSON."""
        return {
            "missing": sum(map(len, self.missing.values())),
            "changed": sum(map(len, self.changed.values())),
            "new": len(self.new),
        }


@dataclass(frozen=True)
class SplitRecord:
    """The split of every image, in the order in which the run reads them."""

    rows: tuple[Row, ...]
    scheme: Scheme
    _by_splits: dict[tuple[str, ...], dict[tuple[int | None, str], str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, source: Source) -> "SplitRecord":
        """The record of a source that has train, val and perhaps test."""
        named = [
            (split_name, split, index, file_size(split.name(index)))
            for split_name, split in source.splits.items()
            for index in range(len(split))
        ]
        scheme = scheme_for(size for *_, size in named)
        rows = [
            Row(
                split_name,
                source.classes[int(split.targets[index])],
                source.relative(split.name(index)),
                size,
                "" if size is None else file_digest(split.name(index), scheme),
            )
            for split_name, split, index, size in named
        ]
        return cls(tuple(rows), scheme)

    def to_csv(self) -> bytes:
        """A CSV table with one row per image. The name of the last column is the kind of digest."""
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow([*COLUMNS, self.scheme])
        table.writerows([row.split, row.class_name, row.path, row.size, row.digest] for row in self.rows)
        # File names that are not valid Unicode survive the round trip.
        return text.getvalue().encode("utf-8", "surrogateescape")

    @classmethod
    def from_csv(cls, content: bytes, where: str) -> "SplitRecord":
        """Read the output of :meth:`to_csv`; ``where`` names the file in errors.

        Raises:
            CheckpointError: the content is not such a table.
        """
        text = content.decode("utf-8", "surrogateescape")
        try:
            header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
            *columns, scheme = header
            if tuple(columns) != COLUMNS or scheme not in ("sha256", "ends"):
                raise ValueError(f"its columns are {', '.join(header)}")
            rows = [
                Row(split, class_name, path, int(size) if size else None, digest)
                for split, class_name, path, size, digest in lines
            ]
            if unknown := {row.split for row in rows} - set(SPLITS):
                raise ValueError(f"it has a split '{unknown.pop()}'")
        except (ValueError, csv.Error) as error:
            raise CheckpointError(
                f"{printable(where)}: not a table of splits ({printable(str(error))})."
            ) from None
        return cls(tuple(rows), "sha256" if scheme == "sha256" else "ends")

    @cached_property
    def splits(self) -> dict[str, int]:
        """The number of images per split, in the order train, val, test."""
        counts = Counter(row.split for row in self.rows)
        return {name: counts[name] for name in SPLITS if counts[name]}

    def resembles(self, source: Source) -> bool:
        """Whether ``source`` has at least half of the recorded images, with the same names and contents.

        A sample of about ``COMPARED`` images, spread over the record, is compared.
        """
        whole = merge_splits(source)
        name_of = {source.relative(whole.name(index)): whole.name(index) for index in range(len(whole))}
        some = self.rows[:: max(1, len(self.rows) // COMPARED)]
        same = sum(row.path in name_of and self._is_same(row, name_of[row.path]) for row in some)
        return same >= SAME * len(some)

    def splits_by_content(self, names: Iterable[str], of: Sequence[str]) -> list[str | None]:
        """For each file, the split among ``of`` in which the run had an image with the same content."""
        known = self._known(tuple(of))
        sizes = {size for size, _ in known}
        found: list[str | None] = []
        for name in names:
            size = file_size(name)
            found.append(known.get((size, file_digest(name, self.scheme))) if size in sizes else None)
        return found

    def overlap(self, source: Source) -> float:
        """The overlap with ``source`` by content, 0..1.

        It is the number of common images divided by the size of the larger of the two sets.
        """
        names = [split.name(index) for split in source.splits.values() for index in range(len(split))]
        shared = len(names) - self.splits_by_content(names, SPLITS).count(None)
        return min(shared / max(len(self.rows), 1), shared / max(len(names), 1))

    def divide(
        self,
        source: Source,
        classes: Sequence[str],
        *,
        verify: Sequence[str] = SPLITS,
        take_changed: bool = False,
    ) -> tuple[Source, DataChanges]:
        """Apply the recorded splits to ``source``, and report the differences.

        Images are matched by name, or by content if the name no longer exists. Images that were not recorded
        are in no split. An image whose class changed gets the new class.

        Args:
            classes: the classes of the run, in the order of its targets.
            verify: the splits whose images must have the same content. In the others, the name is enough.
            take_changed: keep images with changed content in their splits.
        """
        whole = merge_splits(source)
        place_of = {source.relative(whole.name(index)): index for index in range(len(whole))}
        named = {number: place_of[row.path] for number, row in enumerate(self.rows) if row.path in place_of}
        same = {
            number: place
            for number, place in named.items()
            if self.rows[number].split not in verify or self._is_same(self.rows[number], whole.name(place))
        }
        moved = self._by_content(whole, same)
        found = same | moved
        left = set(range(len(whole))) - set(found.values())
        changed = {number: place for number, place in named.items() if number not in found and place in left}
        changes = DataChanges(moved=len(moved))
        changes.new = [source.relative(whole.name(place)) for place in sorted(left - set(changed.values()))]
        number_of = {name: number for number, name in enumerate(classes)}
        entries: dict[str, list[tuple[int, int]]] = {name: [] for name in self.splits}
        for number, row in enumerate(self.rows):
            place = found.get(number, changed.get(number))
            if place is None:
                changes.missing.setdefault(row.split, []).append(row.path)
                continue
            label = source.classes[int(whole.targets[place])]
            if number in changed or label not in number_of:
                changes.changed.setdefault(row.split, []).append(row.path)
            elif label != row.class_name:
                changes.relabelled += 1
            if label in number_of and (number in found or take_changed):
                entries[row.split].append((place, number_of[label]))
        splits = {name: _selected(whole, each) for name, each in entries.items()}
        return dataclasses.replace(source, classes=tuple(classes), splits=splits), changes

    def _known(self, of: tuple[str, ...]) -> dict[tuple[int | None, str], str]:
        if of not in self._by_splits:
            rows = (row for row in self.rows if row.digest and row.split in of)
            self._by_splits[of] = {(row.size, row.digest): row.split for row in rows}
        return self._by_splits[of]

    def _is_same(self, row: Row, name: str) -> bool:
        if file_size(name) != row.size:
            return False
        return row.size is None or file_digest(name, self.scheme) == row.digest

    def _by_content(self, whole: Split, same: Mapping[int, int]) -> dict[int, int]:
        """Match renamed images by content: row number -> index in ``whole``.

        Args:
            same: the images that were matched by name.
        """
        lost: dict[tuple[int | None, str], list[int]] = defaultdict(list)
        for number in reversed(range(len(self.rows))):
            row = self.rows[number]
            if row.digest and number not in same:
                lost[row.size, row.digest].append(number)
        sizes = {size for size, _ in lost}
        found = {}
        for place in sorted(set(range(len(whole))) - set(same.values())):
            name = whole.name(place)
            size = file_size(name)
            if size in sizes and (numbers := lost.get((size, file_digest(name, self.scheme)))):
                found[numbers.pop()] = place
        return found


def _selected(whole: Split, entries: Sequence[tuple[int, int]]) -> Split:
    targets = np.asarray([label for _, label in entries], dtype=np.int64)
    return dataclasses.replace(whole.subset([place for place, _ in entries]), targets=targets)


def _first(names: Sequence[str]) -> str:
    return quoted(names[:3]) + (", ..." if len(names) > 3 else "")


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
