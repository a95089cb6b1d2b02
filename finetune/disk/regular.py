"""Read regular files of limited size, without ever blocking on a pipe or a device.

Every failure is an ``OSError`` whose ``strerror`` describes the problem, so callers report it like any other
read error. Like :mod:`finetune.disk.atomic`, this module imports almost nothing.
"""

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

# Limit for a JSON document of a run or model, such as a card, a manifest or an environment.
DOCUMENT_BYTES = 64 << 20
# Limit for a table with one row per image, or a file with one line per epoch.
TABLE_BYTES = 1 << 30

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: "Path") -> None:
    """Check that ``path`` is a regular file. Call it before another library opens the file.

    Raises:
        OSError: the file does not exist or is not a regular file.
    """
    _check(path, os.stat(path))  # noqa: PTH116  (callers also pass strings)


def open_regular(path: "Path") -> "BufferedReader":
    """Open ``path`` for reading bytes; links are followed.

    Raises:
        OSError: as :func:`check_regular`, or the file cannot be opened.
    """
    # Check before opening, because opening some devices has side effects.
    check_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        # Check again: the file may have been replaced in between.
        _check(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: "Path", limit: int) -> bytes:
    """The content of ``path``, at most ``limit`` bytes.

    Raises:
        OSError: as :func:`open_regular`, or the file is larger.
    """
    with open_regular(path) as file:
        # Check the size first: `read` allocates the whole buffer at once. The file may still grow.
        large = os.fstat(file.fileno()).st_size > limit
        content = b"" if large else file.read(limit + 1)
    if large or len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {_size(limit)}, the limit for such a file", str(path))
    return content


def read_regular_text(path: "Path", limit: int) -> str:
    """The UTF-8 text in ``path``, with its line endings unchanged.

    Raises:
        OSError: as :func:`read_regular`.
        ValueError: the file is not UTF-8.
    """
    return read_regular(path, limit).decode("utf-8")


def _check(path: "Path", status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        raise OSError(
            errno.EINVAL, f"{kind}, not a regular file" if kind else "not a regular file", str(path)
        )


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
