"""Verify that the files of a checkpoint are those that were saved. Torch-free.

``manifest.json`` of a checkpoint holds the SHA-256 of each of its other files, by file name.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from finetune.disk.regular import DOCUMENT_BYTES, open_regular, read_regular
from finetune.errors import CheckpointError, FinetuneError, printable

T = TypeVar("T")

MANIFEST = "manifest.json"
CHECKED_SUFFIXES = (".safetensors", ".json")
# Even a training that saves a tiny network at every step leaves its files unchanged most of the time.
ATTEMPTS, PAUSE_SECONDS = 50, 0.05


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_damage(folder: Path, needed: Collection[str]) -> str | None:
    """Return how the checkpoint in ``folder`` is damaged, or None if it is intact.

    An intact checkpoint has the files ``needed``, every file is the one that was saved, and no file is
    missing from the manifest.
    """
    try:
        digests = json.loads(read_regular(folder / MANIFEST, DOCUMENT_BYTES))["sha256"]
        if not isinstance(digests, dict) or not set(needed) <= set(digests):
            return f"{folder / MANIFEST}: is not the manifest of a checkpoint"
        for file, expected in digests.items():
            if Path(file).name != file or file == "..":
                return f"{folder / MANIFEST}: names a file outside of its folder"
            if digest(folder / file) != expected:
                return f"{folder / file}: is not the file that was saved (its SHA-256 differs)"
        for path in folder.iterdir():
            if path.suffix in CHECKED_SUFFIXES and path.name not in digests and path.name != MANIFEST:
                return f"{path}: is not part of the checkpoint that was saved"
    except FileNotFoundError as error:
        return f"{folder}: the checkpoint is incomplete ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{folder}: the checkpoint cannot be read ({error})"
    return None


def read_unchanged(folders: Sequence[Path], read: Callable[[], T]) -> T:
    """Return the result of ``read``; read again if a checkpoint in ``folders`` was replaced meanwhile.

    A running training replaces its checkpoints. Files that are read during a replacement may belong to two
    checkpoints, or be missing.

    Raises:
        FinetuneError: ``read`` raised it, and no checkpoint was replaced.
        CheckpointError: a checkpoint was replaced during every attempt.
    """
    for _ in range(ATTEMPTS):
        before = [_version(folder) for folder in folders]
        try:
            result = read()
        except FinetuneError:
            if before == [_version(folder) for folder in folders]:
                raise
        else:
            if before == [_version(folder) for folder in folders]:
                return result
        time.sleep(PAUSE_SECONDS)
    raise CheckpointError(
        f"{printable(folders[0])}: a training replaces it faster than it can be read. Stop the training, or "
        "wait until it ends."
    )


def _version(folder: Path) -> tuple[int, int, int] | None:
    """Identifies a checkpoint by its manifest file; None if there is no checkpoint."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
