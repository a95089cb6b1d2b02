"""Files to read: regular ones, of a size that makes sense. Nothing here waits for a pipe or a device.

Every failure is an ``OSError`` whose ``strerror`` says what is wrong. So whoever reports a file that cannot
be read reports these too. Imports next to nothing, as :mod:`finetune.disk.whole`.
"""

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

# A JSON document of a run or a model: its description, state, environment or manifest.
DOCUMENT_BYTES = 64 << 20
# A table with a row an image, or a file with a line an epoch.
TABLE_BYTES = 1 << 30

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: "Path") -> None:
    """For a reader that opens ``path`` by itself, just before it does.

    Raises:
        OSError: there is no such file, or it is not a regular one.
    """
    _check(path, os.stat(path))  # noqa: PTH116  (also for what is no Path)


def open_regular(path: "Path") -> "BufferedReader":
    """Open ``path`` for reading bytes. Links are followed.

    Raises:
        OSError: as :func:`check_regular`, or it cannot be opened.
    """
    # Looked at before it is opened: opening some devices does something.
    check_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        # Once more on what was opened, which may have taken the place of what was looked at.
        _check(path, os.fstat(file.fileno()))
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: "Path", limit: int) -> bytes:
    """The content of ``path``, of at most ``limit`` bytes.

    Raises:
        OSError: as :func:`open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        # The size first, since a buffer of that size is made at once; then what is really there.
        large = os.fstat(file.fileno()).st_size > limit
        content = b"" if large else file.read(limit + 1)
    if large or len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {_size(limit)}, which no such file is", str(path))
    return content


def read_regular_text(path: "Path", limit: int) -> str:
    """The UTF-8 text in ``path``, line ends as they are.

    Raises:
        OSError: as :func:`read_regular`.
        ValueError: it is not UTF-8.
    """
    return read_regular(path, limit).decode("utf-8")


def _check(path: "Path", status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        raise OSError(errno.EINVAL, f"not a regular file{f' but {kind}' if kind else ''}", str(path))


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
