"""Whether an image is still the same one: its name within its source, its size and a digest of its file."""

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from finetune.disk.regular import open_regular

# Of a data set with more bytes, only the ends of each file are read: reading all would hold up the start.
READ_WHOLE = 256 << 20
END = 64 << 10

# sha256: of the whole file. ends: of its size, its first and its last 64 KiB.
Scheme = Literal["sha256", "ends"]


def relative_name(name: str, root: str | None) -> str:
    """``name`` as seen from ``root``: the same on every machine, wherever the folder lies.

    With slashes, and in Unicode's composed form (macOS writes the other one). Where ``root`` is None, the
    name stays whole.
    """
    if root is not None:
        prefix = os.path.join(root, "")  # noqa: PTH118  (a Path for each of a million names is slow)
        below = name.startswith(prefix) or (root == os.curdir and not os.path.isabs(name))  # noqa: PTH117
        name = name.removeprefix(prefix) if below else os.path.relpath(name, root)
    return unicodedata.normalize("NFC", name.replace(os.sep, "/"))


def file_size(name: str) -> int | None:
    """The size of an image's file in bytes; None where it has no regular file."""
    try:
        status = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def scheme_for(sizes: Iterable[int | None]) -> Scheme:
    """How a data set with files of these sizes is digested."""
    return "sha256" if sum(size or 0 for size in sizes) <= READ_WHOLE else "ends"


def file_digest(name: str, scheme: Scheme) -> str:
    """Hexadecimal digest of a file, 64 characters; empty where it cannot be read."""
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
