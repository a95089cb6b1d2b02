"""The files below a folder, and which of them are images by their names alone: none is opened."""

import os
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import DataError, printable

# What archivers, network drives and tools leave among the images. Names with a leading dot are hidden too.
STRAY_NAMES = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
)


def is_stray(name: str) -> bool:
    """Whether a file or folder name is hidden, or what archivers and network drives leave behind."""
    return name.startswith(".") or name.lower() in STRAY_NAMES


def walk_files(folder: str | Path, above: tuple[str | Path, ...] = ()) -> Iterator[str]:
    """The paths of all files below ``folder``, one at a time, each folder's entries sorted by name.

    Hidden and stray names are left out. Linked folders are followed, none of them twice, and none of those
    in ``above`` (the folders that ``folder`` lies in), so links that go round end. What is neither file nor
    folder (a broken link, a pipe) counts as a file: reading it says what is wrong.

    Raises:
        DataError: a folder that cannot be listed.
    """
    seen = {file_identity(path) for path in above}
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
    """The entries of one folder without hidden and stray ones, sorted by name.

    Raises:
        DataError: a folder that cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_stray(entry.name)]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{printable(os.fspath(folder))}: cannot list this folder: {reason}") from None
    found.sort(key=lambda entry: entry.name)
    return found


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that goes round is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def file_identity(path: str | Path) -> tuple[int, int] | str:
    """The same for two paths that lead to the same thing."""
    try:
        status = Path(path).stat()
    except OSError:
        return os.fspath(path)
    return status.st_dev, status.st_ino
