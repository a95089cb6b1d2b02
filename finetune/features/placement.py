"""Whether features are kept, and where: by a fixed rule, never by a timing.

Keeping pays where a row is read more than once, and where reading it takes less time than reading, decoding
and computing the image anew. Both times are estimated from counts (bytes, pixels, operations) and nominal
speeds, so that a recipe is decided the same way each time it runs on a machine.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.data.cache.contents import features_folder
from finetune.data.machine import memory
from finetune.errors import require_known

# Nominal speeds. A row from a disk mostly comes out of the system's file cache.
BYTES_PER_SECOND = {"memory": 4e9, "disk": 1e9}
FLOPS_PER_THREAD = 5e10
FLOPS_OF_A_GPU = 1e13
SECONDS_PER_PIXEL = 5e-8
# Of the machine's memory, `auto` takes no more than this share.
MEMORY_SHARE = 0.25

Where = Literal["memory", "disk"]


@dataclass(frozen=True)
class Placement:
    """Where features are kept, None for nowhere; ``why`` in words."""

    where: Where | None
    why: str

    def __str__(self) -> str:
        place = {"memory": "kept in memory", "disk": "kept on disk", None: "computed anew each time"}
        return f"{place[self.where]} ({self.why})"


def choose_placement(
    wanted: Literal["auto", "memory", "disk", "off"],
    limit: int,
    *,
    rows: int,
    uses: float,
    row_bytes: int,
    flops: int,
    pixels: int,
    threads: int,
    on_gpu: bool,
    taken: int = 0,
) -> Placement:
    """Settle where ``rows`` features are kept.

    Args:
        wanted: the recipe's ``cache.where``; auto prefers the disk, which the next run finds filled.
        limit: the recipe's, in bytes.
        uses: how often a row is read.
        row_bytes: of one image's features.
        flops: floating-point operations of one image in the frozen layers.
        pixels: of one image as the network sees it.
        taken: of ``limit``, by what else this run keeps, in bytes.
    """
    require_known("cache.where", wanted, ("auto", "memory", "disk", "off"))
    if wanted == "off":
        return Placement(None, "cache.where: off")
    total = rows * row_bytes
    size = f"{rows:,} x {format_bytes(row_bytes)}"
    if total > limit - taken:
        return Placement(None, f"{size} = {format_bytes(total)} is {over_limit(limit, taken)}")
    place: Where | None = wanted if wanted != "auto" else place_with_room(total)
    if place is None:
        return Placement(None, f"{size} = {format_bytes(total)} has room neither on disk nor in memory")
    reading = row_bytes / BYTES_PER_SECOND[place]
    computing = (
        flops / (FLOPS_OF_A_GPU if on_gpu else threads * FLOPS_PER_THREAD) + pixels * SECONDS_PER_PIXEL
    )
    times = f"{format_bytes(row_bytes)} an image; reading {_ms(reading)}, computing {_ms(computing)}"
    if wanted == "auto" and uses <= 1:
        return Placement(None, "each look is used once only")
    if wanted == "auto" and reading >= computing:
        return Placement(None, times)
    return Placement(place, times)


def over_limit(limit: int, taken: int) -> str:
    """What is said of more bytes than ``cache.limit`` leaves beside features that take ``taken`` of it."""
    beside = f", of which features take {format_bytes(taken)}" if taken else ""
    return f"over cache.limit, {format_bytes(limit)}{beside}"


def format_bytes(count: int) -> str:
    """Bytes as ``2.0 KB``, ``1.3 GB``, of 1000 to the KB."""
    size, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms"


def place_with_room(total: int) -> Where | None:
    """Where so many bytes have room: on the disk, else in memory; None: nowhere."""
    folder = features_folder()
    existing = next((each for each in (folder, *folder.parents) if each.is_dir()), Path("/"))
    # As much again stays free.
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free >= 2 * total:
        return "disk"
    return "memory" if total <= MEMORY_SHARE * memory() else None
