"""The cache on disk: find it, list its contents, remove them, make room. Torch-free, for ``finetune cache``.

``CACHE/features/KEY/`` holds the features of one frozen prefix under one preprocessing
(:mod:`finetune.features.store`); ``CACHE/decoded/KEY/`` holds images that were decoded in one way
(:mod:`finetune.data.cache.decoded`). In each folder, ``about.json`` describes the contents. A folder is
removed as a whole, least recently used first. Downloaded data sets, which lie in the same cache, stay.
"""

import contextlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.disk.regular import DOCUMENT_BYTES, read_regular

log = logging.getLogger("finetune")

ABOUT = "about.json"
VARIABLE = "FINETUNE_CACHE"


@dataclass(frozen=True)
class CachedFolder:
    """A folder of the cache.

    Attributes:
        kind: features or images.
        nbytes: size on disk.
        used: time of the last use, in seconds since 1970.
        about: the contents of ``about.json``; empty if it cannot be read.
    """

    kind: str
    folder: Path
    nbytes: int
    used: float
    about: dict[str, Any]


def cache_folder() -> Path:
    """``$FINETUNE_CACHE``, else ``$XDG_CACHE_HOME/finetune``, else ``~/.cache/finetune``.

    The folder need not exist.
    """
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "finetune"
    return Path.home() / ".cache" / "finetune"


def features_folder() -> Path:
    """The folder of cached features; it need not exist."""
    return cache_folder() / "features"


def decoded_folder() -> Path:
    """The folder of cached decoded images; it need not exist."""
    return cache_folder() / "decoded"


def list_cached() -> list[CachedFolder]:
    """All folders of the cache, most recently used first."""
    found = [
        _cached_folder(kind, each)
        for kind, root in _roots().items()
        for each in _entries(root)
        if os.path.isdir(each)  # noqa: PTH112  (Path.is_dir raises where access is denied)
    ]
    return sorted(found, key=lambda cached: -cached.used)


def clear_cache() -> int:
    """Remove all folders of the cache; return the number of bytes freed.

    A training run that reads them goes on: files live until they are closed. Files that cannot be removed,
    such as another user's, stay, with a warning.
    """
    before = sum(each.nbytes for each in list_cached())
    # Earlier versions also cached the listings of large folders.
    for root in (*_roots().values(), cache_folder() / "listings"):
        shutil.rmtree(root, ignore_errors=True)
        if os.path.lexists(root):
            log.warning(
                "%s: some of it could not be removed. It may belong to another user, or be in use", root
            )
    return max(0, before - sum(each.nbytes for each in list_cached()))


def make_room(needed: int, limit: int, *spare: Path) -> int:
    """Remove the least recently used folders until ``needed`` more bytes fit within ``limit``.

    Args:
        spare: folders that are about to be used. They stay, and their size does not count.

    Returns:
        The number of folders removed.
    """
    others = [each for each in list_cached() if each.folder not in spare]
    total, removed = sum(each.nbytes for each in others), 0
    while others and total + needed > limit:
        oldest = others.pop()
        shutil.rmtree(oldest.folder, ignore_errors=True)
        total -= oldest.nbytes
        removed += 1
    return removed


def _roots() -> dict[str, Path]:
    return {"features": features_folder(), "images": decoded_folder()}


def _cached_folder(kind: str, folder: Path) -> CachedFolder:
    nbytes = 0
    for path in _entries(folder):
        with contextlib.suppress(OSError):
            nbytes += path.stat().st_size
    used = 0.0
    with contextlib.suppress(OSError):
        used = os.stat(folder).st_mtime  # noqa: PTH116
    about: Any = None
    with contextlib.suppress(OSError, ValueError):
        about = json.loads(read_regular(folder / ABOUT, DOCUMENT_BYTES))
    return CachedFolder(kind, folder, nbytes, used, about if isinstance(about, dict) else {})


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder; none if it does not exist or access is denied."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
