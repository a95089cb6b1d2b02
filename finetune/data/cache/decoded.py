"""Decoded images that are kept: the bases of :mod:`finetune.image.transforms`.

They are kept in a folder, where the next run finds them, or in memory. Each process appends to a *log* of its
own and reads the others'. A log is a row of records: a header with a checksum of itself and one of the
pixels, and the pixels. What a killed process left half written, or a disk lost, fails its checksum and is
decoded anew, so that nothing need wait for the disk. An image goes by its *stamp*: its path, inode, size and
times of change. A file that was changed or replaced has another.

One process writes: the one that trains. It also decides what is read from here, so loader processes need no
more than the place of a record.
"""

import contextlib
import json
import logging
import os
import secrets
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from finetune.data.cache.contents import ABOUT
from finetune.image.threes import Pixels

log = logging.getLogger("finetune")

SUFFIX = ".pixels"
# Stamp, height, width, checksum of the pixels; and then of these 44 bytes.
HEADER = struct.Struct("<32sIII")
CHECK = struct.Struct("<I")
HEADER_BYTES = HEADER.size + CHECK.size
# Each run that reads a new image adds a log. Beyond so many, the oldest are left alone.
MOST_LOGS = 256

# Without waiting: what cannot be read at an offset, such as a pipe, is a log without images.
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Place(NamedTuple):
    """Where the pixels of an image are: in which log, from which byte, their shape, their checksum."""

    log: int
    offset: int
    height: int
    width: int
    checksum: int

    @property
    def nbytes(self) -> int:
        return self.height * self.width * 3


class Decoded:
    """Decoded images, by stamp.

    Args:
        folder: on disk; it is made where needed. None: in memory.
        limit: bytes that they may take; what comes later is not kept.
        about: what the folder holds, in words, for ``finetune cache info``.

    A disk that cannot be written, or is full, is no error: nothing more is kept, with a warning.
    """

    def __init__(self, folder: Path | None, limit: int, about: Mapping[str, Any] | None = None) -> None:
        self._limit = limit
        self._places: dict[bytes, Place] = {}
        self._paths: list[Path] = []
        self._files: dict[int, int] = {}
        self._checked: set[Place] = set()
        self._nbytes = 0
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
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        """For a loader process that is not forked: what :meth:`read` needs."""
        return self.__dict__ | {"_places": {}, "_files": {}, "_own": None, "takes_more": False}

    def find(self, stamp: bytes) -> Place | None:
        """Where the image with this stamp is; None where it is not kept."""
        return self._places.get(stamp)

    def read(self, place: Place) -> Pixels | None:
        """The pixels, uint8 (height, width, 3), not writable; None where they are gone or damaged."""
        try:
            if place.log not in self._files:
                self._files[place.log] = os.open(self._paths[place.log], READING)
            content = os.pread(self._files[place.log], place.nbytes, place.offset)
        except OSError:
            return None
        if len(content) != place.nbytes:
            return None
        if place not in self._checked:
            if zlib.crc32(content) != place.checksum:
                return None
            self._checked.add(place)
        return np.frombuffer(content, dtype=np.uint8).reshape(place.height, place.width, 3)

    def add(self, stamp: bytes, pixels: Pixels, lost: Place | None = None) -> None:
        """Keep uint8 pixels (height, width, 3), unless there is no room.

        Args:
            lost: the place that they were not found at, if they had one.
        """
        if not self.takes_more or self._places.get(stamp) != lost:
            return
        if self._nbytes + HEADER_BYTES + pixels.nbytes > self._limit:
            self.takes_more = False
            log.info("cache.limit is reached: %d decoded images are kept", len(self))
            return
        content = pixels.tobytes()
        height, width = pixels.shape[:2]
        checksum = zlib.crc32(content)
        header = HEADER.pack(stamp, height, width, checksum)
        try:
            self._append(header + CHECK.pack(zlib.crc32(header)) + content)
        except OSError as error:
            log.warning("%s: cannot be written (%s); no more images are kept", self._paths[-1], error)
            self.takes_more = False
            if self._own is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._own, self._end)
            return
        offset = self._end - len(content)
        place = Place(len(self._paths) - 1, offset, height, width, checksum)
        self._places[stamp] = place
        self._checked.add(place)
        self._nbytes += HEADER_BYTES + len(content)

    def close(self) -> None:
        """Let go of all files."""
        for file in {*self._files.values(), *([] if self._own is None else [self._own])}:
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
            # Read by people only: a torn one is harmless, and the next run writes it again.
            text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            (folder / ABOUT).write_text(text, encoding="utf-8", errors="surrogateescape")
            os.utime(folder)
            found = sorted((each.stat().st_mtime_ns, each) for each in folder.glob(f"*{SUFFIX}"))
        except OSError as error:
            log.warning("%s: cannot be written (%s); decoded images are not kept", folder, error)
            self.takes_more = False
            return
        for _, path in found[-_most_logs() :]:
            self._paths.append(path)
            with contextlib.suppress(OSError):
                self._take_up(len(self._paths) - 1)
        # Made when it is needed. Not by the number of the process alone, which comes again.
        self._paths.append(folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")

    def _take_up(self, number: int) -> None:
        """Find the whole records of a log, which another process may be writing."""
        file = self._files[number] = os.open(self._paths[number], READING)
        size, at = os.fstat(file).st_size, 0
        self._nbytes += size
        while at + HEADER_BYTES <= size:
            content = os.pread(file, HEADER_BYTES, at)
            header, check = content[: HEADER.size], content[HEADER.size :]
            if len(content) != HEADER_BYTES or CHECK.unpack(check)[0] != zlib.crc32(header):
                return
            stamp, height, width, checksum = HEADER.unpack(header)
            place = Place(number, at + HEADER_BYTES, height, width, checksum)
            at = place.offset + place.nbytes
            if at <= size:
                self._places.setdefault(stamp, place)


def _most_logs() -> int:
    """How many logs to read: each is a descriptor, of which a process may have few."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY:
            return max(1, min(MOST_LOGS, limit // 4))
    return MOST_LOGS


@contextlib.contextmanager
def decoded_in_memory(limit: int) -> Iterator[Decoded | None]:
    """Within, images can be kept in memory, ``limit`` bytes of them; None where the system has no way."""
    if not hasattr(os, "pread"):
        yield None
        return
    with contextlib.closing(Decoded(None, limit)) as decoded:
        yield decoded


def _in_memory() -> tuple[int, Path]:
    """A file without a name, and a path under which other processes find it on Linux."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("finetune")
        return file, Path(f"/proc/{os.getpid()}/fd/{file}")
    with tempfile.TemporaryFile() as unnamed:
        return os.dup(unnamed.fileno()), Path(os.devnull)
