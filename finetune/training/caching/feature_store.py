"""The store that a run, or a probe, keeps the features of its frozen layers in."""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from finetune.data.cache.contents import features_folder, make_room
from finetune.features.extract import Extractor
from finetune.features.placement import Where
from finetune.features.store import FeatureStore
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")

# Of what a store's rows depend on beside the prefix and the images; another format is another store.
FORMAT = 3


def open_store(
    setup: Setup,
    extract: Extractor,
    k: int,
    where: Where,
    needed: int,
    beside: Mapping[Path, int] | None = None,
    *,
    plain: bool,
) -> FeatureStore:
    """The store of what ``extract``, the first ``k`` layers, computes under the recipe's transform.

    On disk the folder's name is a hash of all that the rows depend on beside the images, and older folders
    make room within ``cache.limit``.

    Args:
        needed: bytes that the rows take.
        beside: other folders of the cache that are in use, and what they come to in bytes; they stay.
    """
    about = _about(setup, k, plain)
    if where == "memory":
        return FeatureStore(extract.spec, None, about)
    text = json.dumps([extract.digest(), extract.spec.to_dict(), about], sort_keys=True)
    folder = features_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]
    used = {**(beside or {}), folder: needed}
    gone = make_room(sum(used.values()), setup.recipe.cache.limit_bytes, *used)
    if gone:
        log.info("cache: %d older set%s of features made room", gone, "s" if gone > 1 else "")
    return FeatureStore(extract.spec, folder, about)


def _about(setup: Setup, k: int, plain: bool) -> dict[str, Any]:
    """All that rows depend on beside prefix and images, and what ``finetune cache info`` tells of them."""
    compute, augment = setup.compute, setup.recipe.train.augment
    layer = setup.network.table.body[k - 1]
    looks = augment.model_dump(exclude={"views", "mixup_alpha", "cutmix_alpha"})
    return {
        "format": FORMAT,
        "backbone": setup.recipe.model.backbone,
        "layers": k,
        "layer": layer.name,
        "preprocessing": setup.card.preprocessing.to_dict(),
        "augment": None if plain else looks,
        "decoded": None if plain else setup.loader.transform.shorter,
        "precision": "fp32",
        "device": compute.device.type,
        "threads": compute.threads,
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
    }
