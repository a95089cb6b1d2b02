"""Images whose files became others while a run trains on them: told, and read as they are now."""

import logging
import os
from collections.abc import Iterable

import numpy as np

from finetune.data.sources.dataset import Split
from finetune.errors import printable

log = logging.getLogger("finetune")

# Of what has no file: no file has that size.
NO_FILE = (-1, -1)


class Changes:
    """Size and time of change of each image's file, as they were when this was made."""

    def __init__(self, split: Split) -> None:
        self._split = split
        facts = (number for index in range(len(split)) for number in _facts(split.name(index)))
        self._before = np.fromiter(facts, dtype=np.int64, count=2 * len(split)).reshape(-1, 2)
        self._changed: set[int] = set()
        self._counted = False

    def look(self, indices: Iterable[int]) -> None:
        """Called with the images that were just read. The first that changed is named in the log."""
        for index in self.among(index for index in indices if index not in self._changed):
            name = self._split.name(index)
            if not self._changed:
                log.warning(
                    "%s: was written anew after the run began, and is trained on as it is now; where it "
                    "is another image, nothing repeats this run, and --resume refuses",
                    printable(name),
                )
            self._changed.add(index)

    def among(self, indices: Iterable[int]) -> list[int]:
        """Those of ``indices`` whose file has another size or time now. Their contents may be the same."""
        return [
            each for each in indices if _facts(self._split.name(each)) != tuple(self._before[each].tolist())
        ]

    def count(self) -> None:
        """Called at the end of an epoch. The first time that there are several, the log has their number."""
        if len(self._changed) > 1 and not self._counted:
            self._counted = True
            log.warning("%d training images were written anew after the run began", len(self._changed))


def _facts(name: str) -> tuple[int, int]:
    try:
        status = os.stat(name)  # noqa: PTH116  (a Path for each of a million names is slow)
    except (OSError, ValueError):
        return NO_FILE
    return status.st_size, status.st_mtime_ns
