"""What large folders hold, remembered: a million names are read from one file, and not from the folders.

``CACHE/listings/KEY/`` holds the listing of one folder, and ``about.json``. It counts as long as every folder
that was looked into still has the inode and the times of change that it had before: a file that comes, goes
or gets another name changes those of its folder. What is inside of a file is no part of it, but for those
that had to be opened to tell whether they are images: these must be as they were too. Nothing is
remembered where that could fail: of folders with symbolic links in them, whose targets change unseen, of
folders that were changed just now, and of file systems that keep whole seconds only.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.cache.contents import ABOUT, listings_folder
from finetune.disk.regular import TABLE_BYTES, read_regular

log = logging.getLogger("finetune")

# A smaller folder is looked through in less time than it takes to say so.
FROM_FILES = 10_000
# A folder that changes twice within a tick of its file system's clock has the same times after both.
JUST_NOW_NS = 2_000_000_000
SECOND_NS = 1_000_000_000
FORMAT = 2
LISTING = "listing"


@dataclass
class Visits:
    """The folders and files that a scan looks into, below ``root``, each as it was just before; and the links
    there."""

    root: Path
    folders: list[tuple[str, int, int, int]] = field(default_factory=list)
    links: bool = False

    def enter(self, folder: str | Path) -> None:
        """Called before a folder is listed or a file opened. One that cannot be looked at tells so then."""
        relative = os.fspath(folder)[len(_prefix(self.root)) :]
        with contextlib.suppress(OSError):
            self.folders.append((relative, *_times(folder)))

    def saw(self, entries: Sequence[os.DirEntry[str]]) -> None:
        """Called with what a folder holds."""
        self.links = self.links or any(entry.is_symlink() for entry in entries)

    @property
    def lasting(self) -> bool:
        """Whether a later change of anything shows in the times of a folder."""
        newest = max((changed for *_, changed in self.folders), default=0)
        coarse = all(changed % SECOND_NS == 0 for *_, changed in self.folders)
        return not self.links and not coarse and time.time_ns() - newest >= JUST_NOW_NS


def recall(root: Path) -> tuple[dict[str, Any], list[str]] | None:
    """What :func:`remember` was given of ``root``, its paths whole again; None where nothing counts."""
    try:
        content = read_regular(_place(root) / LISTING, TABLE_BYTES)
        head, _, rest = content.partition(b"\n")
        about = json.loads(head)
        if about["format"] != FORMAT or about["checksum"] != zlib.crc32(rest):
            return None
        written, _, names = rest.partition(b"\n")
        facts = json.loads(written)
        prefix = _prefix(root)
        if any([*_times(prefix + name)] != then for name, *then in facts["visited"]):
            return None
        with contextlib.suppress(OSError):
            os.utime(_place(root))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    paths = os.fsdecode(names).split("\0") if names else []
    return facts["facts"], [prefix + path for path in paths]


def remember(root: Path, visits: Visits, facts: dict[str, Any], paths: Sequence[str]) -> None:
    """Keep ``facts`` (JSON-ready) and ``paths``, which lie below ``root``, for :func:`recall`.

    Small folders are not remembered, nor what may change unseen. A disk that cannot be written is no error.
    """
    if len(paths) < FROM_FILES or not visits.lasting:
        return
    cut = len(_prefix(root))
    names = b"\0".join(os.fsencode(path[cut:]) for path in paths)
    written = json.dumps({"visited": visits.folders, "facts": facts}).encode() + b"\n" + names
    head = json.dumps({"format": FORMAT, "checksum": zlib.crc32(written)}).encode() + b"\n"
    folder = _place(root)
    about = {"folder": os.path.abspath(root), "files": len(paths)}  # noqa: PTH100
    temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        temporary.write_bytes(head + written)
        temporary.replace(folder / LISTING)
    except OSError as error:
        log.info("%s: cannot be written (%s); the listing is not remembered", folder, error)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _place(root: Path) -> Path:
    path = os.fsencode(os.path.abspath(root))  # noqa: PTH100
    return listings_folder() / hashlib.blake2b(path, digest_size=16).hexdigest()


def _prefix(root: Path) -> str:
    return os.path.join(os.fspath(root), "")  # noqa: PTH118


def _times(folder: str | Path) -> tuple[int, int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns
