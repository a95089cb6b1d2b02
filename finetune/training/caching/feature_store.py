"""Open the store in which a run, or a probe, caches the features of its frozen layers."""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from finetune.data.cache.contents import features_folder, make_room
from finetune.features.extract import RowSpec
from finetune.features.placement import Where
from finetune.features.store import FeatureStore
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")

# Version of the cached rows; another version is another store.
FORMAT = 3


class Rows(Protocol):
    """Rows of features: their layout in memory, and a hash of what they depend on but the images."""

    @property
    def spec(self) -> RowSpec: ...

    def digest(self) -> str: ...


def open_store(
    setup: Setup,
    extract: Rows,
    about: Mapping[str, Any],
    where: Where,
    needed: int,
    in_use: Mapping[Path, int],
) -> FeatureStore:
    """Open the store for the features that ``extract`` computes.

    On disk the name of the folder is a hash of everything but the images that the features depend on. Older
    folders are removed to stay within ``cache.limit``.

    Args:
        about: from :func:`describe_features`.
        needed: size of the features in bytes.
        in_use: other cache folders, which stay, with their sizes in bytes.
    """
    if where == "memory":
        return FeatureStore(extract.spec, None, about)
    text = json.dumps([extract.digest(), extract.spec.to_dict(), about], sort_keys=True)
    folder = features_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]
    used = {**in_use, folder: needed}
    gone = make_room(sum(used.values()), setup.recipe.cache.limit_bytes, *used)
    if gone:
        log.info("cache: removed %d older set%s of features to make room", gone, "s" if gone > 1 else "")
    return FeatureStore(extract.spec, folder, about)


def describe_features(setup: Setup, k: int, *, plain: bool) -> dict[str, Any]:
    """Everything but weights and images that the features of the first ``k`` layers depend on.

    ``finetune cache info`` shows it.

    Args:
        plain: whether the images are preprocessed as in evaluation, without augmentation.
    """
    compute, augment = setup.compute, setup.recipe.train.augment
    layer = setup.network.table.body[k - 1]
    views = augment.model_dump(exclude={"views", "mixup_alpha", "cutmix_alpha"})
    return {
        "format": FORMAT,
        "backbone": setup.recipe.model.backbone,
        "layers": k,
        "layer": layer.name,
        "preprocessing": setup.card.preprocessing.to_dict(),
        "augment": None if plain else views,
        "decoded": None if plain else setup.loader.transform.shorter,
        "precision": "fp32",
        "device": compute.device.type,
        "threads": compute.threads,
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
    }
