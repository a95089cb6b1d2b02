"""Identifies an image file: its name within the source, its size and a digest of its contents."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from finetune.disk.regular import open_regular

# Bytes of a data set. Of a larger one, only the ends of each file are read, since reading all delays the
# start.
READ_WHOLE = 256 << 20
END = 64 << 10

# sha256: a digest of the whole file. ends: of its size, its first and its last 64 KiB.
Scheme = Literal["sha256", "ends"]


def relative_name(name: str, root: str | None) -> str:
    """The name of a file relative to ``root``, the same on every machine.

    It has forward slashes and Unicode's composed form (macOS writes the decomposed form). If ``root`` is
    None, the name stays whole.
    """
    if root is not None:
        prefix = os.path.join(root, "")  # noqa: PTH118  (a Path for each of a million names is slow)
        below = name.startswith(prefix) or (root == os.curdir and not os.path.isabs(name))  # noqa: PTH117
        name = name.removeprefix(prefix) if below else os.path.relpath(name, root)
    return unicodedata.normalize("NFC", name.replace(os.sep, "/"))


def file_size(name: str) -> int | None:
    """The size of a regular file in bytes; None for anything else."""
    try:
        status = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def scheme_for(sizes: Iterable[int | None]) -> Scheme:
    """The scheme for a data set with files of these sizes."""
    return "sha256" if sum(size or 0 for size in sizes) <= READ_WHOLE else "ends"


def file_digest(name: str, scheme: Scheme) -> str:
    """The digest of a file, 64 hexadecimal characters; empty if it cannot be read."""
    try:
        with open_regular(Path(name)) as file:
            if scheme == "sha256":
                return hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(str(size).encode())
            digest.update(file.read(END))
            file.seek(max(size - END, file.tell()))
            digest.update(file.read(END))
            return digest.hexdigest()
    except (OSError, ValueError):
        return ""
