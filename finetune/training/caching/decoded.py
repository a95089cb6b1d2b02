"""Cache decoded images of train and val, if and where a fixed rule says so; never by a timing.

The cache pays off if later epochs read the same images. Results are bit-identical with and without it.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features as pillow

from finetune.data.cache.contents import decoded_folder, list_cached, make_room
from finetune.data.cache.decoded import DecodedCache
from finetune.errors import BadImageError, require_known
from finetune.features.placement import Where, format_bytes, over_limit, place_with_room
from finetune.image.decode import read_image
from finetune.image.transforms import EvalTransform
from finetune.training.caching.feature_plan import FeaturePlan
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup

# Version of the cached pixels; another version has another folder.
FORMAT = 2
# The number of images whose sizes are read to estimate the size of all.
SIZES_READ = 64
# A folder is started over if it is this many times larger than its images, or if it is full and less than
# this share of it is of use: the rest belongs to images that have changed since.
WORN_OUT, OF_USE = 3, 0.5


@dataclass(frozen=True)
class DecodedPlan:
    """Where decoded images are cached (None: nowhere), why, and the limit in bytes."""

    where: Where | None
    why: str
    limit: int = 0


def plan_decoded(
    setup: Setup, plans: Sequence[PhasePlan], features: Mapping[int, FeaturePlan]
) -> DecodedPlan:
    """Choose where decoded images of train and val are cached.

    They get what ``cache.limit`` leaves after the phase that caches the most features.
    """
    cache, train = setup.recipe.cache, setup.source.splits["train"]
    require_known("cache.decoded", cache.decoded, ("auto", "memory", "disk", "off"))
    if cache.decoded == "off":
        return DecodedPlan(None, "cache.decoded: off")
    if setup.card.preprocessing.reads == "bands":
        return DecodedPlan(None, "images with their own bands are not cached")
    if not hasattr(os, "pread"):
        return DecodedPlan(None, "this system cannot share them between processes")
    nbytes = base_bytes(setup)
    if nbytes is None:
        return DecodedPlan(None, "they are not files")
    total = len(train) * nbytes + val_bytes(setup)
    taken = max((each.train_bytes + each.val_bytes for each in features.values()), default=0)
    room = max(0, cache.limit_bytes - taken)
    size = f"{len(train):,} x {format_bytes(nbytes)}, and val"
    if cache.decoded != "auto":
        return DecodedPlan(cache.decoded, size, room)
    cached = {number for number, each in features.items() if each.train.where is not None}
    epochs = sum(plan.epochs for plan in plans if plan.number not in cached)
    if epochs <= 1:
        return DecodedPlan(None, "no more than one epoch reads them")
    if total > room:
        return DecodedPlan(None, f"{size} = {format_bytes(total)} is {over_limit(cache.limit_bytes, taken)}")
    place = place_with_room(total)
    if place is None:
        return DecodedPlan(None, f"{size} = {format_bytes(total)} has room neither on disk nor in memory")
    return DecodedPlan(place, f"{size}, read in {epochs} epochs", room)


def describe_decoded(plan: DecodedPlan) -> str:
    """In words, for the user."""
    place = {"memory": "cached in memory", "disk": "cached on disk", None: "decoded again in each epoch"}
    return f"images are {place[plan.where]} ({plan.why})"


@contextlib.contextmanager
def cache_decoded(setup: Setup, plan: DecodedPlan) -> Iterator[None]:
    """While active, cache decoded images of train and val as planned.

    Images of val are cached resized and cropped, but not normalized yet.
    """
    if plan.where is None:
        yield
        return
    of_train = setup.loader.transform.base_facts
    of_val = EvalTransform(setup.card.preprocessing).base_facts
    limit = plan.limit
    for_val = min(val_bytes(setup), limit)
    for_train = len(setup.source.splits["train"]) * (base_bytes(setup) or 0)
    wanted: list[tuple[Mapping[str, Any], Sequence[str], int, int]]
    if of_train == of_val:
        wanted = [(of_train, ("train", "val"), for_train + for_val, limit)]
    else:
        # If there is room, val may also store images as they were before a change, or as a concurrent run
        # caches them.
        most = max(for_val, min(WORN_OUT * for_val, limit - WORN_OUT * for_train))
        wanted = [(of_train, ("train",), for_train, limit - most), (of_val, ("val",), for_val, most)]
    if plan.where == "disk":
        setup.cache_folders = {_folder(setup, facts): min(needed, most) for facts, _, needed, most in wanted}
        make_room(sum(setup.cache_folders.values()), setup.recipe.cache.limit_bytes, *setup.cache_folders)
    caches = [_open(setup, plan.where, *each) for each in wanted]
    setup.loader.use_cache(caches[0])
    setup.val_decoded = caches[-1]
    try:
        yield
    finally:
        setup.loader.use_cache(None)
        setup.val_decoded = None
        setup.cache_folders = {}
        for each in caches:
            each.close()


def _open(
    setup: Setup, where: Where, facts: Mapping[str, Any], splits: Sequence[str], needed: int, limit: int
) -> DecodedCache:
    """Open the cache of the images of ``splits``, which take about ``needed`` of at most ``limit`` bytes."""
    if where == "memory":
        return DecodedCache(None, limit)
    folder, about = _folder(setup, facts), _about(setup, facts)
    there = sum(each.nbytes for each in list_cached() if each.folder == folder)
    cache = DecodedCache(folder, limit, about)
    full = there + needed > limit and _useful_bytes(setup, splits, cache) < OF_USE * min(needed, limit)
    if there and (full or there > min(WORN_OUT * needed, limit)):
        cache.close()
        shutil.rmtree(folder, ignore_errors=True)
        cache = DecodedCache(folder, limit, about)
    return cache


def _useful_bytes(setup: Setup, splits: Sequence[str], cache: DecodedCache) -> int:
    """The size, in bytes, of the cached images that are still in ``splits``."""
    found = 0
    for name in splits:
        split = setup.source.splits[name]
        for index in range(len(split)):
            stamp = split.stamp(index)
            place = None if stamp is None else cache.find(stamp)
            found += 0 if place is None else place.nbytes
    return found


def _folder(setup: Setup, facts: Mapping[str, Any]) -> Path:
    """The folder of the cache: its name is a hash of everything but the images that the pixels depend on."""
    text = json.dumps(_about(setup, facts), sort_keys=True)
    return decoded_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]


def _about(setup: Setup, facts: Mapping[str, Any]) -> dict[str, Any]:
    source = Path(setup.source.name)
    return {
        "format": FORMAT,
        "source": str(source.absolute() if source.exists() else source),
        **facts,
        # Only if colours do not repeat, a file with bands of its own may be read as an image.
        **({"repeated": True} if setup.card.preprocessing.bands is not None else {}),
        "versions": {name: version(name) for name in ("pillow", "numpy")},
        # The same version of Pillow comes with one decoder or another.
        "jpeg": [str(pillow.version(name)) for name in ("jpg", "libjpeg_turbo", "mozjpeg")],
    }


def val_bytes(setup: Setup) -> int:
    """Bytes of all decoded images of val, with 100 for the header of each."""
    return len(setup.source.splits["val"]) * (setup.card.preprocessing.image_size**2 * 3 + 100)


def base_bytes(setup: Setup) -> int | None:
    """Average bytes of a decoded image, from a sample of sizes; None if the images are not files."""
    split, transform = setup.source.splits["train"], setup.loader.transform
    found = []
    for index in np.linspace(0, len(split) - 1, min(SIZES_READ, len(split)), dtype=np.int64).tolist():
        if not os.path.isfile(split.name(index)):  # noqa: PTH113  (that of a Path raises if it may not read the folder)
            continue
        try:
            width, height = read_image(Path(split.name(index)), lambda image: image.size)
        except BadImageError:
            continue
        found.append(transform.base_bytes(width, height))
    return round(sum(found) / len(found)) if found else None
