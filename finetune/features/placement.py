"""Whether features are cached, and where: chosen by a fixed rule, never by a timing.

Caching pays if a row is read more than once, and if reading it is faster than reading, decoding and computing
the image again. Both times are estimated from counts (bytes, pixels, operations) and nominal speeds, so that
a recipe gets the same placement on every run on a machine.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.data.cache.contents import features_folder
from finetune.data.machine import memory
from finetune.errors import require_known

# Nominal speeds. Rows on disk mostly come from the page cache.
BYTES_PER_SECOND = {"memory": 4e9, "disk": 1e9}
FLOPS_PER_THREAD = 5e10
FLOPS_OF_A_GPU = 1e13
SECONDS_PER_PIXEL = 5e-8
# `auto` uses at most this share of the machine's memory.
MEMORY_SHARE = 0.25

Where = Literal["memory", "disk"]


@dataclass(frozen=True)
class Placement:
    """Where features are cached, None for nowhere, and why, in words."""

    where: Where | None
    why: str

    def __str__(self) -> str:
        place = {"memory": "cached in memory", "disk": "cached on disk", None: "computed each time"}
        return f"{place[self.where]} ({self.why})"


@dataclass(frozen=True)
class Workload:
    """The features of a split.

    Attributes:
        rows: the number of views.
        uses: how often each row is read.
        row_bytes: the size of one row.
        flops: floating-point operations of the frozen layers for one image.
        pixels: of one image as the network sees it.
    """

    rows: int
    uses: float
    row_bytes: int
    flops: int
    pixels: int


@dataclass(frozen=True)
class Budget:
    """``cache.where`` and ``cache.limit`` (bytes) of the recipe, and the part of the limit that is taken."""

    where: Literal["auto", "memory", "disk", "off"]
    limit: int
    taken: int = 0


def flops_per_second(threads: int, *, on_gpu: bool) -> float:
    """Return the nominal speed of a device."""
    return FLOPS_OF_A_GPU if on_gpu else threads * FLOPS_PER_THREAD


def choose_placement(work: Workload, budget: Budget, speed: float) -> Placement:
    """Choose where features are cached.

    ``auto`` prefers the disk, where the next run finds them. ``memory`` and ``disk`` are honoured unless the
    limit is exceeded.

    Args:
        speed: of the device, in floating-point operations per second.
    """
    require_known("cache.where", budget.where, ("auto", "memory", "disk", "off"))
    if budget.where == "off":
        return Placement(None, "cache.where: off")
    total = work.rows * work.row_bytes
    size = f"{work.rows:,} x {format_bytes(work.row_bytes)} = {format_bytes(total)}"
    if total > budget.limit - budget.taken:
        return Placement(None, f"{size} is {over_limit(budget.limit, budget.taken)}")
    place: Where | None = budget.where if budget.where != "auto" else place_with_room(total)
    if place is None:
        return Placement(None, f"{size} fits neither on disk nor in memory")
    reading = work.row_bytes / BYTES_PER_SECOND[place]
    computing = work.flops / speed + work.pixels * SECONDS_PER_PIXEL
    times = f"{format_bytes(work.row_bytes)} per image; reading {_ms(reading)}, computing {_ms(computing)}"
    if budget.where == "auto" and work.uses <= 1:
        return Placement(None, "each view is used only once")
    if budget.where == "auto" and reading >= computing:
        return Placement(None, times)
    return Placement(place, times)


def place_with_room(total: int) -> Where | None:
    """Choose a place with room for ``total`` bytes: the disk, else memory, else None."""
    folder = features_folder()
    existing = next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))
    # The same amount must stay free.
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free >= 2 * total:
        return "disk"
    return "memory" if total <= MEMORY_SHARE * memory() else None


def over_limit(limit: int, taken: int) -> str:
    """Describe an amount that exceeds what features, which take ``taken`` bytes, leave of ``cache.limit``."""
    beside = f", of which features take {format_bytes(taken)}" if taken else ""
    return f"over cache.limit, {format_bytes(limit)}{beside}"


def format_bytes(count: int) -> str:
    """Format bytes as ``2.0 KB`` or ``1.3 GB``, with 1000 bytes per KB."""
    size, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms"
