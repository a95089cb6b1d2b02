"""Write files that users name: whole or not at all, with errors that say how to fix the problem.

A file gets its name when it is complete; until then, an older file of that name stays. A symbolic link stays,
and its target is replaced. A pipe, a terminal or ``/dev/stdout`` receives the bytes once all of them are
ready. Folders, sockets and block devices are refused.

Files are written in a temporary folder beside the target. A killed process leaves that folder behind; the
next write to the same target removes it.
"""

import contextlib
import errno
import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Self

from finetune.disk.atomic import sync
from finetune.disk.csv_table import CsvTable
from finetune.errors import FinetuneError, SaveError, UserError, is_out_of_files, printable

# Errors that another path fixes. All others are the machine's.
_MISPLACED = frozenset(
    {
        errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
        errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.EBADF, errno.EILSEQ,
    }
)  # fmt: skip
_ROOM = "Free some space or choose another path."
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit (`ulimit -f`) or choose a file system that allows files of this size.",
    errno.EIO: "The disk may be failing. Choose another path.",
    errno.EPIPE: "The reading program has ended.",
}
_REFUSED = {stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device"}
_STAGE_SUFFIX = ".partial"
# A file name of the target is cut to this length, so that the stage's longer name stays valid.
_STAGE_NAME_LENGTH = 40


def write_error(target: Path, error: OSError) -> FinetuneError:
    """The error to raise for a failed write: a UserError if another path helps, else a SaveError."""
    text = f"{printable(target)}: cannot be written ({error.strerror or type(error).__name__})."
    if error.errno in _MISPLACED:
        return UserError(f"{text} Choose another path.")
    return SaveError(f"{text} {_REMEDIES.get(error.errno or 0, 'Choose another path.')}")


@contextlib.contextmanager
def write_errors_for(target: Path) -> Iterator[None]:
    """Turn every OSError inside the block into an error about ``target``.

    Raises:
        UserError: ``target`` cannot be written there.
        SaveError: the disk is full or failing.
    """
    try:
        yield
    except OSError as error:
        if is_out_of_files(error):
            raise
        raise write_error(target, error) from None


def check_new_file(target: Path, *, overwrite: bool = False, option: str = "") -> None:
    """Check before a long computation that a new file can be written to ``target``.

    Args:
        overwrite: an existing file may be replaced.
        option: text for the message about the option that allows overwriting.

    Raises:
        UserError: as :func:`check_output`; or the file exists, or its folder does not.
    """
    check_output(target)
    if not overwrite and target.is_file() and _own_descriptor(target) is None:
        raise UserError(f"{printable(target)} already exists. {option}Choose another name.")
    if not target.parent.is_dir():
        raise UserError(
            f"{printable(target)}: create the folder {printable(target.parent)} first; it does not exist."
        )


def check_output(target: Path) -> None:
    """Check before a long computation, without writing, that ``target`` can be written.

    Raises:
        UserError: it is a folder, a socket or a block device, or permission is missing.
    """
    file = _file_to_write(target)
    exists = file is None or file.exists()
    with write_errors_for(target):
        if exists and _own_descriptor(target) is None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder on the disk of ``target``; :func:`publish` moves files out of it.

    On exit, the folder and all unpublished files are removed. So are parent folders that were created for it
    and are empty.

    Raises:
        UserError: ``target`` cannot be written there.
        SaveError: the disk is full or failing.
    """
    check_output(target)
    file = _file_to_write(target)
    with contextlib.ExitStack() as stack:
        with write_errors_for(target):
            if file is None:
                stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finetune-")))
            else:
                stage = stack.enter_context(_folder_beside(file))
        yield stage


def publish(staged: Path, target: Path) -> None:
    """Move the complete file ``staged`` to ``target``; copy it if ``target`` is a pipe or a terminal.

    Raises:
        UserError: ``target`` cannot be written there.
        SaveError: the disk is full or failing. An earlier file at ``target`` is unchanged.
    """
    file = _file_to_write(target)
    with write_errors_for(target):
        if file is None:
            _copy_into(staged, target)
            return
        if file.exists():
            shutil.copymode(file, staged)
        try:
            sync(staged)
            staged.replace(file)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # One of several files that are staged together may belong on another disk.
            with staging(target) as beside:
                shutil.copyfile(staged, beside / "copy")
                publish(beside / "copy", target)
            return
        with contextlib.suppress(OSError):  # Some file systems refuse to flush a folder.
            sync(file.parent)


def write_output(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all; errors as for :func:`publish`."""
    with staging(target) as stage:
        staged = stage / "content"
        with write_errors_for(target), staged.open("wb") as file:
            file.write(content)
        publish(staged, target)


def write_table(rows: Iterable[Sequence[object]], stage: Path, target: Path, *, safe: bool) -> None:
    """Write rows as CSV to ``target``; errors as for :func:`publish`.

    Args:
        stage: the folder that :func:`staging` gave for ``target``.
        safe: see :class:`CsvTable`.
    """
    staged = stage / "table"
    with TextOutput(staged, target) as text:
        table = CsvTable(text, safe=safe)
        for row in rows:
            table.row(row)
    publish(staged, target)


class TextOutput:
    """A UTF-8 text file, written to ``staged``, whose errors name ``target``.

    Characters that are not valid Unicode, as in some file names, become escapes.
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error that is being raised already says more than one from closing.
        with contextlib.suppress(OSError) if kind else write_errors_for(self._target):
            self._file.close()


def _file_to_write(target: Path) -> Path | None:
    """The file to replace or create; None if ``target`` is a pipe, a terminal or another stream.

    Raises:
        UserError: ``target`` cannot be written.
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
        raise UserError(f"{printable(target)} is {kind}. Give a file name.")
    file = Path(os.path.realpath(target))
    # A file that another process holds open may have lost its name.
    return file if stat.S_ISREG(mode) and file.exists() else None


def _copy_into(staged: Path, target: Path) -> None:
    number = _own_descriptor(target)
    if number is None:
        into = os.open(target, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))
    else:
        # Write to the same open file, so that later output follows this one.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        into = os.dup(number)
    with os.fdopen(into, "wb") as file, staged.open("rb") as content:
        shutil.copyfileobj(content, file)


def _own_descriptor(target: Path) -> int | None:
    """N if ``target`` is ``/dev/fd/N``, ``/dev/stdout`` or another link to an open file of this process."""
    path = os.path.abspath(target)  # noqa: PTH100  (resolve() would follow the link)
    for _ in range(40):
        folder, name = os.path.split(path)
        if name.isdecimal() and os.path.realpath(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
        except (OSError, ValueError):
            return None
    return None


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target``; removed on exit, and so are parents that it needed.

    A lock on the folder ends with its process. So a folder without one was left by a killed process.
    """
    folder, name = target.parent, target.name[:_STAGE_NAME_LENGTH]
    created = list(takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{glob.escape(name)}.*{_STAGE_SUFFIX}"):
            if (lock := _lock(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        stage = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_STAGE_SUFFIX, dir=folder))
    except OSError:
        _remove_empty(created)
        raise
    lock = _lock(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    for each in folders:
        with contextlib.suppress(OSError):  # It holds published files or was never created.
            each.rmdir()


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of ``folder``; None if another process has it or locks are missing."""
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
