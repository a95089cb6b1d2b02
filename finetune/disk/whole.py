"""One file, written whole, in a folder whose owner sweeps up what killed writes left behind.

Imports next to nothing, so that a start that is refused comes at once.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# What the names of files begin with that are not whole yet.
TEMPORARY = ".tmp-"


def write_atomic(path: "Path", content: bytes) -> None:
    """Write a file that has its name only once it is whole and on disk.

    Several processes may write the same one; each writes a temporary file of its own.

    Raises:
        OSError: the disk is full or failing; what was there before still is.
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
        return  # Windows cannot open a folder to flush it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
