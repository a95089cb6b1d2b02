"""Whether decoded training pictures are kept, and where: by a fixed rule, never by a timing.

Keeping pays where later epochs read them. Where they come from makes no difference to any bit.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import features as pillow

from finetune.data.decoded import Decoded
from finetune.data.images import read_image
from finetune.data.kept import decoded_folder, make_room
from finetune.errors import BadImageError
from finetune.features.decide import Verdict, Where, amount, place_for
from finetune.training.frozen import FeaturePlan
from finetune.training.plan import PhasePlan
from finetune.training.setup import Setup

# Of what the pixels depend on beside the picture and the transform; another format is another folder.
FORMAT = 1
# So many pictures' sizes are looked at to tell how much room all of them take.
SIZES_READ = 64


def plan_decoded(setup: Setup, plans: Sequence[PhasePlan], features: Mapping[int, FeaturePlan]) -> Verdict:
    """Settle where decoded training pictures are kept, and why."""
    cache, train = setup.recipe.cache, setup.source.splits["train"]
    if cache.decoded == "off":
        return Verdict(None, "cache.decoded: off")
    if not hasattr(os, "pread"):
        return Verdict(None, "this system cannot share them between processes")
    nbytes = _base_bytes(setup)
    if nbytes is None:
        return Verdict(None, "they are no files")
    total, limit = len(train) * nbytes, setup.recipe.cache.limit_bytes
    size = f"{len(train):,} x {amount(nbytes)}"
    if cache.decoded != "auto":
        return Verdict(cache.decoded, size)
    epochs = sum(plan.epochs for plan in plans if not _features_kept(features.get(plan.number)))
    if epochs <= 1:
        return Verdict(None, "no more than one epoch reads them")
    if total > limit:
        return Verdict(None, f"{size} = {amount(total)} is over cache.limit, {amount(limit)}")
    place = place_for(total)
    if place is None:
        return Verdict(None, f"{size} = {amount(total)} has room neither on disk nor in memory")
    return Verdict(place, f"{size}, read in {epochs} epochs")


def describe_decoded(verdict: Verdict) -> str:
    """For the run's facts."""
    place = {"memory": "kept in memory", "disk": "kept on disk", None: "decoded anew each time"}
    return f"training pictures are {place[verdict.where]} ({verdict.why})"


@contextlib.contextmanager
def keeping(setup: Setup, verdict: Verdict) -> Iterator[None]:
    """Within, the training loader keeps what it decodes where ``verdict`` says."""
    if verdict.where is None:
        yield
        return
    decoded = _open(setup, verdict.where)
    setup.loader.keep(decoded)
    try:
        yield
    finally:
        setup.loader.keep(None)
        decoded.close()


def _open(setup: Setup, where: Where) -> Decoded:
    """What keeps the pictures that the training loader decodes.

    On disk the folder's name is a hash of all that the pixels depend on beside the pictures, and what was
    used longest ago makes room within ``cache.limit``.
    """
    limit = setup.recipe.cache.limit_bytes
    if where == "memory":
        return Decoded(None, limit)
    about = {
        "format": FORMAT,
        **setup.loader.transform.base_facts,
        "versions": {name: version(name) for name in ("pillow", "numpy")},
        # The same version of Pillow comes with one decoder or another.
        "jpeg": [str(pillow.version(name)) for name in ("jpg", "libjpeg_turbo", "mozjpeg")],
    }
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    folder = decoded_folder() / name
    needed = len(setup.source.splits["train"]) * (_base_bytes(setup) or 0)
    make_room(min(needed, limit), limit, folder)
    return Decoded(folder, limit, about)


def _features_kept(plan: FeaturePlan | None) -> bool:
    return plan is not None and plan.train.where is not None


def _base_bytes(setup: Setup) -> int | None:
    """What one decoded picture takes on average, from the sizes of a few; None where there are no files."""
    split, transform = setup.source.splits["train"], setup.loader.transform
    found = []
    for index in np.linspace(0, len(split) - 1, min(SIZES_READ, len(split)), dtype=np.int64).tolist():
        if not Path(split.name(index)).is_file():
            continue
        try:
            width, height = read_image(Path(split.name(index)), lambda image: image.size)
        except BadImageError:
            continue
        found.append(transform.base_bytes(width, height))
    return round(sum(found) / len(found)) if found else None
