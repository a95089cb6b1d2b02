"""Files that a user names to be written: how they are, and what is said where they cannot be.

A file gets its name when it is whole; until then an older one of that name stays. A symbolic link stays, and
the file that it leads to is replaced. What is no file, such as a pipe, a terminal or ``/dev/stdout``, gets
the bytes once all are there. A folder, a socket and a block device are refused.
"""

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from finetune.disk.csv_table import CsvTable
from finetune.disk.staging import staged_folder
from finetune.disk.whole import sync
from finetune.errors import FinetuneError, SaveError, UserError, is_out_of_files, printable

# What another place mends; the rest is the machine's.
_MISPLACED = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
        errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.EBADF, errno.EILSEQ,
    }
)  # fmt: skip
_ROOM = "Make room, or choose another place."
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit (`ulimit -f`), or choose a place that takes files of this size.",
    errno.EIO: "The disk may be failing: choose another place.",
    errno.EPIPE: "What reads it has ended.",
}
_REFUSED = {stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device"}


def write_error(target: Path, error: OSError) -> FinetuneError:
    """What to raise where ``target`` cannot be written: by whom it can be mended, and how."""
    text = f"{printable(target)}: cannot be written ({error.strerror or type(error).__name__})."
    if error.errno in _MISPLACED:
        return UserError(f"{text} Choose another place.")
    return SaveError(f"{text} {_REMEDIES.get(error.errno or 0, 'Choose another place.')}")


@contextlib.contextmanager
def write_errors_for(target: Path) -> Iterator[None]:
    """Within, what the system refuses is said of ``target``.

    Raises:
        UserError: it has to be somewhere else.
        SaveError: the disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        if is_out_of_files(error):
            raise
        raise write_error(target, error) from None


def check_new_file(target: Path, *, overwrite: bool = False, option: str = "") -> None:
    """Find out early that what a user goes on to edit cannot be written to ``target``.

    Args:
        overwrite: a file may be there.
        option: what to say of the option by which it may.

    Raises:
        UserError: as :func:`check_output`; or there is a file already, or no folder for one.
    """
    check_output(target)
    if not overwrite and target.is_file() and _own_descriptor(target) is None:
        raise UserError(f"{printable(target)} is there already, and stays. {option}Choose another name.")
    if not target.parent.is_dir():
        raise UserError(f"{printable(target)}: there is no folder {printable(target.parent)}; make it first.")


def check_output(target: Path) -> None:
    """Find out early that ``target`` cannot be written, as far as that can be told without writing.

    Raises:
        UserError: it is a folder, a socket or a block device, or may not be written.
    """
    place = _replaced(target)
    exists = place is None or place.exists()
    with write_errors_for(target):
        if exists and _own_descriptor(target) is None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder on the disk of ``target``, to write in; :func:`publish` moves files out of it.

    It is removed on leaving, with all that was not published, and so are folders that were made for it.

    Raises:
        UserError: ``target`` is nothing to write to, or nothing can be written beside it.
        SaveError: the disk is full or failing.
    """
    check_output(target)
    file = _replaced(target)
    with contextlib.ExitStack() as stack:
        with write_errors_for(target):
            if file is None:
                stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finetune-")))
            else:
                stage = stack.enter_context(staged_folder(file))
        yield stage


def publish(staged: Path, target: Path) -> None:
    """Bring ``staged`` to its place: to disk and under its name, or into what is no file.

    Raises:
        UserError: ``target`` has to be somewhere else.
        SaveError: the disk is full or failing; a file of that name is what it was before.
    """
    file = _replaced(target)
    with write_errors_for(target):
        if file is None:
            _pour(staged, target)
            return
        if file.exists():
            shutil.copymode(file, staged)
        try:
            sync(staged)
            staged.replace(file)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Of several files that belong together, one may have its place on another disk.
            with staging(target) as beside:
                shutil.copyfile(staged, beside / "copy")
                publish(beside / "copy", target)
            return
        with contextlib.suppress(OSError):  # Some file systems refuse to flush a folder.
            sync(file.parent)


def write_output(target: Path, content: bytes) -> None:
    """Write what a user asked for to ``target``, whole or not at all.

    Raises:
        UserError: ``target`` has to be somewhere else.
        SaveError: the disk is full or failing; a file of that name is what it was before.
    """
    with staging(target) as stage:
        staged = stage / "content"
        with write_errors_for(target), staged.open("wb") as file:
            file.write(content)
        publish(staged, target)


def write_table(rows: Iterable[Sequence[object]], stage: Path, target: Path, *, safe: bool) -> None:
    """Write rows as CSV to ``target``, by way of ``stage``, its :func:`staging`.

    Args:
        safe: see :class:`CsvTable`.

    Raises:
        UserError: ``target`` has to be somewhere else.
        SaveError: the disk is full or failing; a file of that name is what it was before.
    """
    staged = stage / "table"
    with TextOutput(staged, target) as text:
        table = CsvTable(text, safe=safe)
        for row in rows:
            table.row(row)
    publish(staged, target)


class TextOutput:
    """A UTF-8 text in the making, for a user's ``target``; errors are about that.

    File names need not be valid Unicode: what is not becomes an escape.
    """

    def __init__(self, staged: Path, target: Path) -> None:
        self._target = target
        with write_errors_for(target):
            self._file = staged.open("w", encoding="utf-8", errors="backslashreplace", newline="")

    def write(self, text: str) -> int:
        with write_errors_for(self._target):
            return self._file.write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # the error on its way says more
                self._file.close()
        else:
            with write_errors_for(self._target):
                self._file.close()


def _replaced(target: Path) -> Path | None:
    """The file that is to be replaced or made; None where ``target`` is no file and takes bytes.

    Raises:
        UserError: it is nothing that can be written.
    """
    if _own_descriptor(target) is not None:
        return None
    with write_errors_for(target):
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            return Path(os.path.realpath(target))
    kind = _REFUSED.get(stat.S_IFMT(mode))
    if kind is not None:
        raise UserError(f"{printable(target)} is {kind}. Give the name of a file to write.")
    file = Path(os.path.realpath(target))
    # Another process's open file may have no name any more.
    return file if stat.S_ISREG(mode) and file.exists() else None


def _pour(staged: Path, target: Path) -> None:
    number = _own_descriptor(target)
    if number is None:
        into = os.open(target, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))
    else:
        # The same open file, not another of the same name: what comes after goes after this.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        into = os.dup(number)
    with os.fdopen(into, "wb") as file, staged.open("rb") as content:
        shutil.copyfileobj(content, file)


def _own_descriptor(target: Path) -> int | None:
    """N of ``/dev/fd/N``, ``/dev/stdout`` and what else leads to an open file of this process."""
    path = os.path.abspath(target)  # noqa: PTH100  (resolving would follow the very link that is looked at)
    for _ in range(40):
        folder, name = os.path.split(path)
        if name.isdecimal() and os.path.realpath(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
        except (OSError, ValueError):
            return None
    return None
