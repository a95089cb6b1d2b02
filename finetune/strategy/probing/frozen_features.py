"""The features of a split from a frozen network, as a linear head would get them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.dataset import Split
from finetune.errors import FinetuneError, UserError
from finetune.features.cached import CachedFeatures
from finetune.features.cut import fold_batchnorm, prefix_graph
from finetune.features.extract import Extractor, RowSpec
from finetune.features.placement import Where
from finetune.features.progress import OnProgress, no_progress
from finetune.features.softmax import Features, Targets
from finetune.image.transforms import EvalTransform
from finetune.model.truncate import Pool
from finetune.recipe.schema import HeadSection, PhaseSection, Recipe
from finetune.training.caching.feature_store import describe_features, open_store
from finetune.training.compute.precision import Compute, choose_compute, pick_device
from finetune.training.setup.prepare import Setup


class FeatureRows(NamedTuple):
    """Features (N, D) of images, their classes (N,), and their groups (N,) or None.

    ``computed`` rows were computed now; the others were in the cache. ``places`` (N,) are the places of the
    images in their split; None if they are not known.
    """

    features: Features
    targets: Targets
    groups: Targets | None
    computed: int = 0
    places: Targets | None = None

    def subset(self, rows: Targets) -> Self:
        groups, places = (None if each is None else each[rows] for each in (self.groups, self.places))
        return self._replace(
            features=self.features[rows], targets=self.targets[rows], groups=groups, places=places
        )


def frozen_recipe(recipe: Recipe, at: int | str | None) -> Recipe:
    """Return ``recipe`` with a linear head on frozen features, and nothing random.

    Args:
        at: ``model.head.at``, the layer at which the head replaces the rest; None: the last.
    """
    model = recipe.model.model_copy(update={"head": HeadSection(at=at)})
    phase = PhaseSection(freeze="backbone", optimizer="lbfgs", weight_decay="auto")
    # Nothing is trained in steps, so everything is in fp32.
    train = recipe.train.model_dump(include={"threads", "memory_format", "batch_size"})
    train |= {"phases": (phase,), "precision": "fp32"}
    return Recipe.model_validate({**dict(recipe), "model": model, "train": train})


def frozen_compute(recipe: Recipe, device: str | None) -> Compute:
    """Choose where and how the frozen features of ``recipe`` are computed."""
    return choose_compute(pick_device(device), frozen_recipe(recipe, None).train)


def features_of(
    setup: Setup,
    split_name: str,
    progress: OnProgress = no_progress,
    places: Sequence[int] | None = None,
) -> FeatureRows:
    """Compute the features of a split's readable images, or of those at ``places``.

    Features are cached as the recipe's ``cache`` says.

    Raises:
        UserError: the network cannot be cut before its head, or its features are not vectors.
        DataError: no image can be read.
    """
    network, preprocessing = setup.network, setup.card.preprocessing
    network.module.eval()
    k = len(network.table.body)
    try:
        prefix: nn.Module = fold_batchnorm(prefix_graph(network.module, network.table, k))
    except FinetuneError as error:
        raise UserError(f"{setup.recipe.model.backbone} cannot be probed: {error}") from None
    cut = network.architecture["head"].get("cut")
    if cut is not None and cut["pool"]:
        prefix = nn.Sequential(prefix, Pool(tuple(cut["pool"])))
    size = preprocessing.image_size
    extract = Extractor(
        prefix,
        (preprocessing.channels, size, size),
        setup.compute.device,
        setup.compute.exact,
        setup.recipe.train.images_per_batch,
    )
    if len(extract.spec.shape) != 1:
        raise takes_a_map(setup)
    return read_features(
        setup, split_name, extract, describe_features(setup, k, plain=True), progress, places
    )


def read_features(
    setup: Setup,
    split_name: str,
    extract: Extractor,
    about: Mapping[str, Any],
    progress: OnProgress = no_progress,
    places: Sequence[int] | None = None,
) -> FeatureRows:
    """Compute what ``extract`` makes of a split's readable images, or of those at ``places``, and cache it.

    Args:
        about: names the features in the cache.

    Raises:
        DataError: no image can be read.
    """
    split, preprocessing = setup.source.splits[split_name], setup.card.preprocessing
    store = open_store(setup, extract, about, where_cached(setup), bytes_needed(setup, extract.spec), {})
    cached = CachedFeatures(store, extract, split, EvalTransform(preprocessing), plain=True)
    draws = [(index, 0) for index in (range(len(split)) if places is None else places)]
    computed = cached.fill(
        draws, workers=setup.workers, on_bad_image=setup.recipe.data.on_bad_image, progress=progress
    )
    return rows_of(setup, split, cached.batch(draws), computed)


def takes_a_map(setup: Setup) -> UserError:
    """The error for a network whose last features are no vector."""
    return UserError(
        f"{setup.recipe.model.backbone}: its head takes a map, and a probe needs a vector. Probe an earlier "
        "layer (`finetune probe --layers`)."
    )


def where_cached(setup: Setup) -> Where:
    """Where a probe caches features: on disk, unless the recipe says memory or off."""
    return "memory" if setup.recipe.cache.where in ("memory", "off") else "disk"


def bytes_needed(setup: Setup, spec: RowSpec) -> int:
    """The size of the features of all images of the source."""
    return sum(len(each) for each in setup.source.splits.values()) * spec.nbytes


def rows_of(setup: Setup, split: Split, batch: Batch, computed: int) -> FeatureRows:
    """The features of a batch of ``split``. Reports the images that could not be read."""
    setup.loader.report_bad_images(batch.bad)
    found = np.asarray(batch.indices, dtype=np.int64)
    groups = None if split.groups is None else split.groups[found]
    return FeatureRows(batch.images.float().numpy(), batch.labels.numpy(), groups, computed, found)
