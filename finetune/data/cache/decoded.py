"""A cache of decoded images: the bases of :mod:`finetune.image.transforms`, on disk or in memory.

Each process appends to a *log* of its own and reads the logs of others. A log is a sequence of records. Each
record is a header, with a checksum of the header and one of the pixels, followed by the pixels. A record that
a killed process left incomplete, or that the disk damaged, fails its checksum, and the image is decoded
again. So no write has to wait for the disk.

Images are stored under their *stamp*: path, inode, size and times of change of the file. A changed file has a
new stamp.

Only the training process writes. It also looks up the entries, so loader processes need no index.
"""

import contextlib
import json
import logging
import os
import resource
import secrets
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.data.cache.contents import ABOUT
from finetune.image.pixels import Pixels

log = logging.getLogger("finetune")

SUFFIX = ".pixels"
# Stamp, height, width, checksum of the pixels. The checksum of these 44 bytes follows.
HEADER = struct.Struct("<32sIII")
CHECK = struct.Struct("<I")
HEADER_BYTES = HEADER.size + CHECK.size
# Each run that decodes a new image adds a log. Only the newest logs are read.
MAX_LOGS = 256

# O_NONBLOCK: opening a pipe must not wait. A pipe has no offsets, so it counts as an empty log.
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class CacheEntry(NamedTuple):
    """Where the cache stores an image: number of the log, offset of the pixels, their shape and checksum."""

    log: int
    offset: int
    height: int
    width: int
    checksum: int

    @property
    def nbytes(self) -> int:
        return self.height * self.width * 3


class DecodedCache:
    """A cache of decoded images, by stamp.

    If the disk is full or not writable, the cache warns and stores no more images.

    Args:
        folder: on disk; created if needed. None: in memory.
        limit: maximum size in bytes. Images that do not fit are not stored.
        about: description of the contents, for ``finetune cache info``.

    ``nbytes`` is the size of all logs. ``takes_more`` is False once no more images are stored.
    """

    def __init__(self, folder: Path | None, limit: int, about: Mapping[str, Any] | None = None) -> None:
        self._limit = limit
        self._entries: dict[bytes, CacheEntry] = {}
        self._paths: list[Path] = []
        self._files: dict[int, int] = {}
        self._checked: set[CacheEntry] = set()
        self.nbytes = 0
        self._own: int | None = None
        self._end = 0
        self.takes_more = True
        if folder is not None:
            self._open_folder(folder, dict(about or {}))
        else:
            self._own, path = _in_memory()
            self._files[0] = self._own
            self._paths.append(path)

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        """The state for a loader process that is not forked: all that :meth:`read` needs."""
        return self.__dict__ | {"_entries": {}, "_files": {}, "_own": None, "takes_more": False}

    def find(self, stamp: bytes) -> CacheEntry | None:
        """The entry of the image with this stamp; None if it is not cached."""
        return self._entries.get(stamp)

    def read(self, entry: CacheEntry) -> Pixels | None:
        """The pixels of an entry: uint8 (height, width, 3), read-only. None if missing or damaged."""
        try:
            if entry.log not in self._files:
                self._files[entry.log] = os.open(self._paths[entry.log], READING)
            content = os.pread(self._files[entry.log], entry.nbytes, entry.offset)
        except OSError:
            return None
        if len(content) != entry.nbytes:
            return None
        if entry not in self._checked:
            if zlib.crc32(content) != entry.checksum:
                return None
            self._checked.add(entry)
        return np.frombuffer(content, dtype=np.uint8).reshape(entry.height, entry.width, 3)

    def add(self, stamp: bytes, pixels: Pixels, unreadable: CacheEntry | None = None) -> None:
        """Store an image, unless there is no room.

        Args:
            pixels: uint8, shape (height, width, 3).
            unreadable: an entry of the same image that could not be read, and that this one replaces.
        """
        if not self.takes_more or self._entries.get(stamp) != unreadable:
            return
        if self.nbytes + HEADER_BYTES + pixels.nbytes > self._limit:
            self.takes_more = False
            log.info("cache.limit is reached: %d decoded images are cached", len(self))
            return
        content = pixels.tobytes()
        height, width = pixels.shape[:2]
        checksum = zlib.crc32(content)
        header = HEADER.pack(stamp, height, width, checksum)
        try:
            self._append(header + CHECK.pack(zlib.crc32(header)) + content)
        except OSError as error:
            log.warning("%s: cannot be written (%s); no more images are cached", self._paths[-1], error)
            self.takes_more = False
            if self._own is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._own, self._end)
            return
        offset = self._end - len(content)
        entry = CacheEntry(len(self._paths) - 1, offset, height, width, checksum)
        self._entries[stamp] = entry
        self._checked.add(entry)
        self.nbytes += HEADER_BYTES + len(content)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                os.close(file)
        self._files, self._own, self.takes_more = {}, None, False

    def _append(self, record: bytes) -> None:
        if self._own is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._own = self._files[len(self._paths) - 1] = os.open(self._paths[-1], flags, 0o666)
        at = self._end
        rest = memoryview(record)
        while rest:
            written = os.pwrite(self._own, rest, at)
            rest, at = rest[written:], at + written
        self._end = at

    def _open_folder(self, folder: Path, about: dict[str, Any]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Only people read it. The next run replaces an incomplete one.
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            (folder / ABOUT).write_text(text, encoding="utf-8", errors="surrogateescape")
            os.utime(folder)
            found = sorted((each.stat().st_mtime_ns, each) for each in folder.glob(f"*{SUFFIX}"))
        except OSError as error:
            log.warning("%s: cannot be written (%s); decoded images are not cached", folder, error)
            self.takes_more = False
            return
        for _, path in found[-_max_logs() :]:
            self._paths.append(path)
            with contextlib.suppress(OSError):
                self._read_log(len(self._paths) - 1)
        # Created with the first image. The process id alone is not unique: systems reuse it.
        self._paths.append(folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")

    def _read_log(self, number: int) -> None:
        """Index the complete records of a log, to which another process may be appending."""
        file = self._files[number] = os.open(self._paths[number], READING)
        size, at = os.fstat(file).st_size, 0
        self.nbytes += size
        while at + HEADER_BYTES <= size:
            content = os.pread(file, HEADER_BYTES, at)
            header, check = content[: HEADER.size], content[HEADER.size :]
            if len(content) != HEADER_BYTES or CHECK.unpack(check)[0] != zlib.crc32(header):
                return
            stamp, height, width, checksum = HEADER.unpack(header)
            entry = CacheEntry(number, at + HEADER_BYTES, height, width, checksum)
            at = entry.offset + entry.nbytes
            if at <= size:
                self._entries.setdefault(stamp, entry)


def _max_logs() -> int:
    """The number of logs to read. Each takes a descriptor, and a process may have few."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_LOGS if limit == resource.RLIM_INFINITY else max(1, min(MAX_LOGS, limit // 4))


def _in_memory() -> tuple[int, Path]:
    """An unnamed file, and a path under which other processes can open it on Linux."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("finetune")
        return file, Path(f"/proc/{os.getpid()}/fd/{file}")
    with tempfile.TemporaryFile() as unnamed:
        return os.dup(unnamed.fileno()), Path(os.devnull)
