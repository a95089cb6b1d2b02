"""Whether the files of a checkpoint are the ones that were saved. Torch-free.

A checkpoint's ``manifest.json`` holds the SHA-256 of every other file of it.
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
CHECKED = (".safetensors", ".json")
# A training that saves each step of a tiny network still leaves its files alone for most of the time.
ATTEMPTS, PAUSE = 50, 0.05


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fault(folder: Path, needed: Collection[str]) -> str | None:
    """What is wrong with the checkpoint ``folder``, which must have the files ``needed``.

    None if each file is the one that was saved, and none is there of which the manifest does not know.
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
            if path.suffix in CHECKED and path.name not in digests and path.name != MANIFEST:
                return f"{path}: is no part of the checkpoint that was saved"
    except FileNotFoundError as error:
        return f"{folder}: the checkpoint is incomplete ({Path(error.filename).name} is missing)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{folder}: the checkpoint cannot be read ({error})"
    return None


def undisturbed(folders: Sequence[Path], read: Callable[[], T]) -> T:
    """What ``read`` finds in the checkpoints ``folders``, none of which was replaced meanwhile.

    A training that is going on replaces its checkpoints. What was read while one was replaced may be of two
    of them, or miss a file: it is read again.

    Raises:
        FinetuneError: as ``read``, where nothing was replaced.
        CheckpointError: they are replaced all the time.
    """
    for _ in range(ATTEMPTS):
        before = [_version(folder) for folder in folders]
        try:
            found, error = [read()], None
        except FinetuneError as caught:
            found, error = [], caught
        if before == [_version(folder) for folder in folders]:
            if error is not None:
                raise error
            return found[0]
        time.sleep(PAUSE)
    raise CheckpointError(
        f"{printable(folders[0])}: a training replaces it faster than it can be read. Stop the training, or "
        "wait for its end."
    )


def _version(folder: Path) -> tuple[int, int, int] | None:
    """Which checkpoint the folder is: each has a manifest of its own. None where there is none."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
