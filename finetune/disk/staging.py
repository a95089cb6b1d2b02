"""Files that appear beside the user's own only when they are complete, and leave nothing else there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finetune.disk.whole import sync
from finetune.errors import UserError

SUFFIX = ".partial"


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``, to write in; :func:`publish` moves files out of it.

    It is removed on leaving, with all that was not published. After a kill, the next staging of the same
    target removes it: a lock, which dies with its process, tells an abandoned folder from one in use.

    Raises:
        UserError: ``target`` is a folder, or nothing can be written beside it.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder. Give the name of a file to write.")
    folder = target.parent
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{_escaped(target.name)}.*{SUFFIX}"):
            _remove_if_abandoned(left)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=SUFFIX, dir=folder))
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}). Choose another place.") from None
    lock = _lock(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        if is_new:
            with contextlib.suppress(OSError):  # It holds what was published.
                folder.rmdir()


def publish(staged: Path, target: Path) -> None:
    """Flush ``staged`` to disk, give it its final name and flush the folder.

    Raises:
        OSError: the disk is full or failing; ``target`` is what it was before.
    """
    sync(staged)
    staged.replace(target)
    with contextlib.suppress(OSError):  # Some file systems refuse to flush a folder.
        sync(target.parent)


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
