"""Detects image files that change while a run trains on them, and warns about them."""

import logging
import os
from collections.abc import Iterable

import numpy as np

from finetune.data.dataset import Split
from finetune.errors import printable

log = logging.getLogger("finetune")

# Size and time of an image without a file. No file has this size.
NO_FILE = (-1, -1)


class FileChanges:
    """Compares the files of a split with their sizes and times of change at construction."""

    def __init__(self, split: Split) -> None:
        self._split = split
        facts = (number for index in range(len(split)) for number in _size_and_time(split.name(index)))
        self._before = np.fromiter(facts, dtype=np.int64, count=2 * len(split)).reshape(-1, 2)
        self._reported: set[int] = set()
        self._total_reported = False

    def changed(self, indices: Iterable[int]) -> list[int]:
        """The images of ``indices`` whose file has a new size or time. The contents may be the same."""
        return [
            index
            for index in indices
            if _size_and_time(self._split.name(index)) != tuple(self._before[index].tolist())
        ]

    def report(self, indices: Iterable[int]) -> None:
        """Warn about the first file that changed. ``indices`` are the images that were just read."""
        for index in self.changed(index for index in indices if index not in self._reported):
            if not self._reported:
                log.warning(
                    "%s: the file changed after the run began. Training uses the new file. If it shows "
                    "another image, this run cannot be repeated or resumed",
                    printable(self._split.name(index)),
                )
            self._reported.add(index)

    def report_total(self) -> None:
        """At the end of an epoch: warn once, with the number of files, if several changed."""
        if len(self._reported) > 1 and not self._total_reported:
            self._total_reported = True
            log.warning("%d image files changed after the run began", len(self._reported))


def _size_and_time(name: str) -> tuple[int, int]:
    try:
        status = os.stat(name)  # noqa: PTH116  (a Path for each of a million names is slow)
    except (OSError, ValueError):
        return NO_FILE
    return status.st_size, status.st_mtime_ns
