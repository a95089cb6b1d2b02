"""What the cache keeps on disk beside fetched data, and making room. Torch-free, for ``finetune cache``.

``CACHE/features/KEY/`` holds the features that one frozen prefix computes under one preprocessing
(:mod:`finetune.features.store`), ``CACHE/decoded/KEY/`` training images that were decoded in one way
(:mod:`finetune.data.cache.decoded`). In each, ``about.json`` says in words what they are. A folder is
removed whole; the one that was used longest ago goes first.
"""

import contextlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.data.cache.folder import cache_folder
from finetune.disk.regular import DOCUMENT_BYTES, read_regular

log = logging.getLogger("finetune")

ABOUT = "about.json"


@dataclass(frozen=True)
class Kept:
    """One folder of what is kept: features or decoded images.

    ``nbytes`` on disk; ``used`` last, in seconds since 1970; ``about`` says what it is.
    """

    kind: str
    folder: Path
    nbytes: int
    used: float
    about: dict[str, Any]


def features_folder() -> Path:
    """Where features are kept on disk; it need not exist."""
    return cache_folder() / "features"


def decoded_folder() -> Path:
    """Where decoded images are kept on disk; it need not exist."""
    return cache_folder() / "decoded"


def list_kept() -> list[Kept]:
    """All that is there, what was used last first."""
    found = [
        _look(kind, each) for kind, root in _roots().items() for each in _inside(root) if _is_folder(each)
    ]
    return sorted(found, key=lambda kept: -kept.used)


def clear() -> int:
    """Remove everything; returns how many bytes that were.

    A training that reads them at the moment goes on: its files live until it closes them. What may not be
    removed, since it is another user's, stays, with a warning.
    """
    before = sum(each.nbytes for each in list_kept())
    for root in _roots().values():
        shutil.rmtree(root, ignore_errors=True)
        if os.path.lexists(root):
            log.warning("%s: not all of it could be removed; it may be another user's, or in use", root)
    return max(0, before - sum(each.nbytes for each in list_kept()))


def make_room(needed: int, limit: int, *spare: Path) -> int:
    """Remove what was used longest ago until ``needed`` more bytes stay within ``limit``.

    Args:
        spare: the folders that are about to be used; they are never removed, and do not count.

    Returns:
        How many folders went.
    """
    others = [each for each in list_kept() if each.folder not in spare]
    total, gone = sum(each.nbytes for each in others), 0
    while others and total + needed > limit:
        oldest = others.pop()
        shutil.rmtree(oldest.folder, ignore_errors=True)
        total -= oldest.nbytes
        gone += 1
    return gone


def _roots() -> dict[str, Path]:
    return {"features": features_folder(), "images": decoded_folder()}


def _look(kind: str, folder: Path) -> Kept:
    nbytes = 0
    for path in _inside(folder):
        with contextlib.suppress(OSError):
            nbytes += path.stat().st_size
    used = 0.0
    with contextlib.suppress(OSError):
        used = os.stat(folder).st_mtime  # noqa: PTH116
    about: Any = None
    with contextlib.suppress(OSError, ValueError):
        about = json.loads(read_regular(folder / ABOUT, DOCUMENT_BYTES))
    return Kept(kind, folder, nbytes, used, about if isinstance(about, dict) else {})


def _inside(folder: Path) -> list[Path]:
    """What is in a folder, which may be gone, or closed to this user: then nothing."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    # A Path's own is_dir raises where it may not be looked at.
    return os.path.isdir(path)  # noqa: PTH112
