"""Walk folders in sorted order, without hidden files and without following links in circles."""

import os
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import DataError, printable

# Folders that archivers, network drives and tools leave behind. Names with a leading dot are hidden too.
STRAY_NAMES = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
)


def is_stray(name: str) -> bool:
    """Whether a file or folder is hidden or was left behind by an archiver or a network drive."""
    return name.startswith(".") or name.lower() in STRAY_NAMES


def walk_files(folder: str | Path) -> Iterator[str]:
    """Yield the paths of all files below ``folder``; each folder's entries are sorted by name.

    Hidden and stray names are skipped. Linked folders are followed, each at most once. A broken link or a
    pipe counts as a file, so that reading it reports the error.

    Raises:
        DataError: a folder cannot be listed.
    """
    seen: set[tuple[int, int] | str] = set()
    stack: list[tuple[str, bool]] = [(os.fspath(folder), True)]
    while stack:
        path, is_folder = stack.pop()
        if not is_folder:
            yield path
            continue
        this = file_identity(path)
        if this in seen:
            continue
        seen.add(this)
        entries = [(entry.path, is_directory(entry)) for entry in list_folder(path)]
        stack.extend(reversed(entries))


def list_folder(folder: str | Path) -> list[os.DirEntry[str]]:
    """The entries of one folder, sorted by name, without hidden and stray ones.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_stray(entry.name)]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{printable(os.fspath(folder))}: the folder cannot be listed: {reason}") from None
    found.sort(key=lambda entry: entry.name)
    return found


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A circular link is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def file_identity(path: str | Path) -> tuple[int, int] | str:
    """An identifier that is equal for two paths to the same file or folder."""
    try:
        status = Path(path).stat()
    except OSError:
        return os.fspath(path)
    return status.st_dev, status.st_ino
