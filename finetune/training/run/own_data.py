"""Find the images of a run and split them as the run recorded."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from finetune.checkpoint.storage import read_document
from finetune.data.dataset import Source
from finetune.data.holdout.groups import assign_groups
from finetune.data.holdout.recorded import SPLITS, DataChanges, SplitRecord
from finetune.data.sources.read import is_path, read_source
from finetune.disk.regular import TABLE_BYTES, read_regular
from finetune.errors import CheckpointError, DataError, printable
from finetune.recipe.schema import DataSection
from finetune.training.run import files
from finetune.training.setup.prepare import reading_of


@dataclass(frozen=True)
class OwnData:
    """The images of a run as they are now.

    Attributes:
        source: split as recorded.
        changes: the differences from the record.
        place: the path that was read, or the name of a known set.
        classes: the present classes, in the order of the source.
    """

    source: Source
    changes: DataChanges
    place: str
    classes: tuple[str, ...]


def read_undivided(data: DataSection, place: str | None = None, *, groups: bool = True) -> Source:
    """Read the recipe's source without splitting off val or test.

    Args:
        place: the source to read; None: ``data.source``.
        groups: whether to find the groups of ``data.group_by``.

    Raises:
        DataError: the source cannot be read.
    """
    place = data.source if place is None else place
    source = read_source(place, reading_of(data))
    return assign_groups(source, place, data.group_by) if groups and data.group_by is not None else source


def describe_place(place: str, run: Path) -> dict[str, str] | None:
    """The absolute path of a run's images, and the path relative to the run; None for a known set."""
    if not is_path(place):
        return None
    absolute = os.path.abspath(Path(place).expanduser())  # noqa: PTH100  (links stay as they are)
    found = {"absolute": absolute}
    with contextlib.suppress(ValueError):  # On Windows, no relative path leads to another drive.
        found["from_run"] = os.path.relpath(os.path.realpath(absolute), os.path.realpath(run))
    return found


@dataclass(frozen=True)
class RecordedData:
    """The data of a run as its directory records it.

    Attributes:
        section: the data section of the recipe.
        record: the images of each split.
        classes: in the order of the run's targets.
    """

    run: Path
    section: DataSection
    record: SplitRecord
    classes: Sequence[str]

    @classmethod
    def read(cls, run: Path, section: DataSection, classes: Sequence[str]) -> Self | None:
        """Read the record of a run; None for a run of an earlier version.

        Raises:
            CheckpointError: the file is damaged or cannot be read.
        """
        record = read_record(run)
        return None if record is None else cls(run, section, record, classes)

    def find(
        self,
        place: str | None = None,
        *,
        verify: Sequence[str] = SPLITS,
        groups: bool = False,
        take_changed: bool = False,
    ) -> OwnData:
        """Find the images and split them as recorded.

        Args:
            place: the source to read; None: search :meth:`places`. Of all but the first place, at least half
                of the recorded images must be there, so that another folder of the same name is never used.
            groups: whether to find the groups of ``data.group_by``.
            verify, take_changed: as :meth:`SplitRecord.divide`.

        Raises:
            DataError: the images are not found or cannot be read.
        """
        if place is None:
            source, place = self._search(groups)
        else:
            source = read_undivided(self.section, place, groups=groups)
        if self.section.fold is not None:
            # The source's own test split is not part of a fold.
            rest = {name: split for name, split in source.splits.items() if name != "test"}
            source = dataclasses.replace(source, splits=rest)
        divided, changes = self.record.divide(source, self.classes, verify=verify, take_changed=take_changed)
        return OwnData(divided, changes, place, source.classes)

    def places(self) -> list[str]:
        """The paths where the images may be, in the order of the search.

        First the path where they were when the run began, then the same path relative to the run, then the
        path in the recipe relative to the working directory.
        """
        known: Any = None
        if (self.run / files.ENVIRONMENT).is_file():
            environment = read_document(self.run / files.ENVIRONMENT)
            known = environment.get("data_source") if isinstance(environment, dict) else None
        here = os.path.abspath(Path(self.section.source).expanduser())  # noqa: PTH100
        if not isinstance(known, dict):
            return [here]
        found = [known.get("absolute")]
        if isinstance(known.get("from_run"), str):
            found.append(os.path.normpath(os.path.join(os.path.realpath(self.run), known["from_run"])))  # noqa: PTH118
        places = [each for each in found if isinstance(each, str)] + [here]
        # Spelled as in the recipe, if that is the same folder.
        spelt = self.section.source if Path(self.section.source).exists() else None
        return list(dict.fromkeys(spelt if spelt and same_place(spelt, each) else each for each in places))

    def _search(self, groups: bool) -> tuple[Source, str]:
        if not is_path(self.section.source):
            return read_undivided(self.section, groups=groups), self.section.source
        places = self.places()
        there = [place for place in places if Path(place).exists()]
        for place in there:
            source = read_undivided(self.section, place, groups=groups)
            if place == places[0] or self.record.resembles(source):
                return source, place
        other = f" {printable(there[0])} holds other images." if there else ""
        raise DataError(
            f"{printable(places[0])}: the images that {printable(self.run)} was trained on are not there any "
            f"more.{other} If they were moved, give their path with --data (eval) or --set data.source=... "
            "(train --resume)."
        )


def read_record(run: Path) -> SplitRecord | None:
    """Read the splits that a run recorded; None for a run of an earlier version.

    Raises:
        CheckpointError: the file is damaged or cannot be read.
    """
    path = run / files.SPLITS
    if not path.is_file():
        return None
    try:
        content = read_regular(path, TABLE_BYTES)
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from None
    return SplitRecord.from_csv(content, str(path))


def same_place(one: str, other: str) -> bool:
    try:
        return os.path.samefile(Path(one).expanduser(), other)  # noqa: PTH121
    except OSError:
        return False
