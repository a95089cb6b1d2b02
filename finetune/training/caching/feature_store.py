"""Open the store in which a run, or a probe, caches the features of its frozen layers."""

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

# Version of the cached rows; another version is another store.
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
    """Open the store for the features that ``extract``, the first ``k`` layers, computes.

    On disk the name of the folder is a hash of everything but the images that the rows depend on. Older
    folders are removed to stay within ``cache.limit``.

    Args:
        needed: size of the rows in bytes.
        beside: other cache folders in use, which stay, with their sizes in bytes.
    """
    about = _about(setup, k, plain)
    if where == "memory":
        return FeatureStore(extract.spec, None, about)
    text = json.dumps([extract.digest(), extract.spec.to_dict(), about], sort_keys=True)
    folder = features_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]
    used = {**(beside or {}), folder: needed}
    gone = make_room(sum(used.values()), setup.recipe.cache.limit_bytes, *used)
    if gone:
        log.info("cache: removed %d older set%s of features to make room", gone, "s" if gone > 1 else "")
    return FeatureStore(extract.spec, folder, about)


def _about(setup: Setup, k: int, plain: bool) -> dict[str, Any]:
    """Everything but prefix and images that the rows depend on; ``finetune cache info`` shows it."""
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
