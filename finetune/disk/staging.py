"""A folder beside a file to be made, in which it is made; a kill leaves none that stays."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".partial"
# Of a long name: what is added must leave it one that file systems take.
LONGEST = 40


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, removed on leaving, with a folder that was made for it alone.

    After a kill, the next one of the same target removes it: a lock, which dies with its process, tells an
    abandoned folder from one in use.

    Raises:
        OSError: nothing can be written there.
    """
    folder, name = target.parent, target.name[:LONGEST]
    made = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{_escaped(name)}.*{SUFFIX}"):
            _remove_if_abandoned(left)
        stage = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=SUFFIX, dir=folder))
    except OSError:
        _remove_empty(made)
        raise
    lock = _lock(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        _remove_empty(made)


def _missing(folder: Path) -> list[Path]:
    """What of ``folder`` and those above it there is not, from it upward."""
    found = []
    while not folder.exists() and folder != folder.parent:
        found.append(folder)
        folder = folder.parent
    return found


def _remove_empty(folders: list[Path]) -> None:
    for each in folders:
        with contextlib.suppress(OSError):  # It holds what was published, or was never made.
            each.rmdir()


def _lock(folder: Path) -> int | None:
    """A handle that holds the lock of ``folder``; None where another has it or there are no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_abandoned(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
