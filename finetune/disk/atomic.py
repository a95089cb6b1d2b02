"""Write the program's own files atomically; :mod:`finetune.disk.outputs` writes those that users name.

This module imports almost nothing, so that a command that refuses to start does so at once.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# Prefix of unfinished files. A killed process leaves some; the folder's owner removes them.
TEMPORARY = ".tmp-"


def write_atomic(path: "Path", content: bytes) -> None:
    """Write ``content`` to ``path``, which gets its name only when the file is complete and on disk.

    Several processes may write the same path at once; each uses its own temporary file.

    Raises:
        OSError: the disk is full or failing. An earlier file at ``path`` is unchanged.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: "Path") -> None:
    """Flush a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to flush it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
