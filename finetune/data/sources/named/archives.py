"""Unpack a zip file safely: only inside its folder, and only up to a size limit."""

import lzma
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from finetune.disk.regular import open_regular
from finetune.errors import DataError, printable

# Far more than the largest known data set needs.
MAX_BYTES = 2 << 30
MAX_MEMBERS = 200_000
# Exceptions that zipfile and its decompressors raise for damaged archives.
DAMAGE_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError,
    LookupError, ArithmeticError,
)  # fmt: skip


def unpack(archive: Path, folder: Path, *, member: str, max_bytes: int = MAX_BYTES) -> None:
    """Unpack the top folder ``member`` of a zip file to ``folder``, completely or not at all.

    The archive is unpacked under a temporary name and renamed at the end. If another process has created
    ``folder`` in the meantime, that folder stays.

    Raises:
        DataError: the file is not a zip file, is damaged or lacks the folder. Or, before anything is written:
            it contains an absolute path, a path with ``..``, a link or special file, a repeated name or an
            encrypted member, or exceeds ``max_bytes`` or ``MAX_MEMBERS``.
    """
    try:
        with open_regular(archive) as file, zipfile.ZipFile(file) as opened:
            _check_members(opened.infolist(), max_bytes)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                opened.extractall(temporary)
                if not (temporary / member).is_dir():
                    raise DataError(f"it has no folder {member!r}")
                if not folder.exists():
                    (temporary / member).rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except DataError as error:
        raise DataError(f"{printable(archive)}: {error}. Nothing was unpacked.") from None
    except DAMAGE_ERRORS as error:
        raise DataError(
            f"{printable(archive)}: not a valid zip file ({error}). Nothing was unpacked."
        ) from None
    except OSError as error:
        raise DataError(f"{printable(archive)}: cannot be unpacked: {error.strerror or error}") from None


def _check_members(infos: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"{len(infos)} members; the limit is {MAX_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise DataError(f"{total} bytes when unpacked; the limit is {max_bytes}")
    seen = set()
    for info in infos:
        path = PurePosixPath(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename:
            raise DataError(f"the member {info.filename!r} points outside the folder")
        if "\0" in info.orig_filename or not path.parts:
            raise DataError(f"the member {info.orig_filename!r} has an invalid name")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"the member {info.filename!r} is a link or a special file")
        if info.flag_bits & 1:
            raise DataError(f"the member {info.filename!r} is encrypted")
        if not info.is_dir():
            if path in seen:
                raise DataError(f"two members have the name {info.filename!r}")
            seen.add(path)
