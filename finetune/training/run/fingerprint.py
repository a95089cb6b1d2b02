"""Which data a run was trained on, to tell whether it is still the same."""

import hashlib
import os
import stat
from array import array
from collections.abc import Iterator
from pathlib import Path

from finetune.data.sources.dataset import Source

# Of more bytes, sizes and times of change stand for the contents: reading them would hold up the start.
READ_AT_MOST = 256 << 20


def fingerprint(source: Source) -> str:
    """SHA-256 of classes, pictures' names and labels, split by split: which data this is, by name."""
    digest = hashlib.sha256(repr(source.classes).encode())
    for split_name, split in sorted(source.splits.items()):
        digest.update(f"{split_name} {len(split)}\n".encode())
        digest.update(split.targets.tobytes())
        for index in range(len(split)):
            digest.update(split.name(index).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def contents(source: Source) -> str:
    """What is in the picture files: ``sha256:`` and a digest of all their bytes.

    Of a data set of more than ``READ_AT_MOST`` bytes, ``stat:`` and a digest of sizes and times of change.
    Pictures that are no files have their names only.
    """
    # A number of each picture at a time: of a million, all that stat tells would take half a gigabyte.
    sizes, times = array("q"), array("q")
    for name in _names(source):
        status = _status(name)
        sizes.append(-1 if status is None else status.st_size)
        times.append(0 if status is None else status.st_mtime_ns)
    total = sum(size for size in sizes if size > 0)
    digest = hashlib.sha256()
    for name, size, changed in zip(_names(source), sizes, times, strict=True):
        if size < 0:
            digest.update(b"no file\0")
        elif total > READ_AT_MOST:
            digest.update(f"{size} {changed}\0".encode())
        else:
            digest.update(_content(name))
    return f"{'stat' if total > READ_AT_MOST else 'sha256'}:{digest.hexdigest()}"


def _names(source: Source) -> Iterator[str]:
    for _, split in sorted(source.splits.items()):
        yield from map(split.name, range(len(split)))


def _status(name: str) -> os.stat_result | None:
    try:
        status = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _content(name: str) -> bytes:
    try:
        return hashlib.sha256(Path(name).read_bytes()).digest()
    except OSError:
        return b"unreadable\0"
