"""The features of a frozen network after several layers, from one pass of the images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from finetune.data.batches.sampling import Draw
from finetune.data.dataset import Split
from finetune.errors import UserError
from finetune.features.cached import CachedFeatures
from finetune.features.cut import CutError
from finetune.features.depths import DepthExtractor
from finetune.features.extract import Extractor, RowSpec
from finetune.features.joint import DepthRows, JoinedDepths, JointStore, prefixes_of
from finetune.features.progress import OnProgress, no_progress
from finetune.features.store import FeatureStore
from finetune.image.transforms import EvalTransform
from finetune.model.truncate import plan_pools
from finetune.strategy.probing.frozen_features import (
    FeatureRows,
    bytes_needed,
    features_of,
    rows_of,
    takes_a_map,
    where_cached,
)
from finetune.training.caching.feature_store import describe_features, open_store
from finetune.training.setup.prepare import Setup

SPLITS = ("train", "val")
# Features in memory of at most this size come from one pass. On disk all layers do.
MEMORY_BYTES = 1 << 30


class DepthFeatures(NamedTuple):
    """The features of train and val after layer ``k``."""

    k: int
    train: FeatureRows
    val: FeatureRows


def features_at_depths(
    setup: Setup, ks: Sequence[int], alone: Callable[[int], Setup], progress: OnProgress = no_progress
) -> Iterator[DepthFeatures]:
    """Compute the features of train and val after each of the layers ``ks``, the shallowest first.

    They are bit-identical to, and cached as, those of
    :func:`~finetune.strategy.probing.frozen_features.features_of` on a network that is cut at the layer. A
    layer at which that cannot be promised is computed by that function.

    Args:
        setup: of the whole network.
        alone: returns the setup of the network that is cut after a layer.
        progress: called with the images done of a split, and their total.

    Raises:
        UserError: a layer's output is no vector and cannot be made one.
        DataError: no image can be read.
    """
    setup.network.module.eval()
    joins = _starts_alike(setup, alone, ks[-1])
    for part in _parts(setup, ks):
        joint = _open(setup, part) if joins else None
        found = {} if joint is None else {name: joint.fill(name, progress) for name in SPLITS}
        for k in part:
            if joint is not None and k in joint.stores:
                train, val = (joint.rows(found[name], name, k) for name in SPLITS)
            else:
                one = alone(k)
                train, val = (features_of(one, name, progress) for name in SPLITS)
            yield DepthFeatures(k, train, val)


def _starts_alike(setup: Setup, alone: Callable[[int], Setup], k: int) -> bool:
    """Whether a network that is cut starts from the weights of the whole one.

    Random weights can differ: GoogLeNet draws its auxiliary classifiers before its layers, and a cut network
    has none.
    """
    weights = setup.network.weights
    if weights is not None and not weights.report.kept:
        return True
    whole, cut = setup.network.module.state_dict(), alone(k).network
    own = {name for layer in cut.table.body for name in layer.parameters}
    return all(
        torch.equal(value, whole[name]) for name, value in cut.module.state_dict().items() if name in own
    )


@dataclass(frozen=True)
class _Joint:
    """Computes features after several layers in one pass, into the store of each layer."""

    setup: Setup
    extract: Extractor
    stores: dict[int, FeatureStore]

    def fill(self, split_name: str, progress: OnProgress) -> tuple[CachedFeatures, int]:
        """Compute what is missing of a split, and count the images."""
        split, transform = self.setup.source.splits[split_name], EvalTransform(self.setup.card.preprocessing)
        store = JointStore(list(self.stores.values()))
        cached = CachedFeatures(store, self.extract, split, transform, plain=True)
        skips = self.setup.recipe.data.on_bad_image
        computed = cached.fill(
            _draws(split), workers=self.setup.workers, on_bad_image=skips, progress=progress
        )
        return cached, computed

    def rows(self, filled: tuple[CachedFeatures, int], split_name: str, k: int) -> FeatureRows:
        """The features of a split after layer ``k``."""
        split, store = self.setup.source.splits[split_name], self.stores[k]
        batch = filled[0].of_store(store, store.spec).batch(_draws(split))
        return rows_of(self.setup, split, batch, filled[1])


def _draws(split: Split) -> list[Draw]:
    return [(index, 0) for index in range(len(split))]


def _parts(setup: Setup, ks: Sequence[int]) -> list[list[int]]:
    """Divide layers into passes, so that features in memory stay small."""
    lengths = _lengths(setup, ks)
    if where_cached(setup) == "disk":
        return [list(ks)]
    parts: list[list[int]] = []
    size = 0
    for k, length in zip(ks, lengths, strict=True):
        own = bytes_needed(setup, _spec(length))
        if not parts or size + own > MEMORY_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(k)
        size += own
    return parts


def _lengths(setup: Setup, ks: Sequence[int]) -> list[int]:
    """The length of the features after each layer.

    Raises:
        UserError: a layer's output is no vector and cannot be made one.
    """
    network, size = setup.network, setup.card.preprocessing.image_size
    channels = setup.card.preprocessing.channels
    try:
        pools = plan_pools(network.module, network.table, ks, size, channels)
    except UserError as error:
        raise UserError(
            f"--layers: the output of a layer is {error}. Leave that layer out, or change data.image_size."
        ) from None
    if ks[-1] == len(network.table.body) and pools[-1][0]:
        raise takes_a_map(setup)
    return [length for _, length in pools]


def _spec(length: int) -> RowSpec:
    return RowSpec((length,), torch.float32, channels_last=False)


def _open(setup: Setup, ks: Sequence[int]) -> _Joint | None:
    """Open the stores of the layers that one pass can fill; None if there are none."""
    network, preprocessing = setup.network, setup.card.preprocessing
    size, channels = preprocessing.image_size, preprocessing.channels
    try:
        depths = DepthExtractor(network.module, network.table, ks, size, channels, folded=True)
        prefixes = dict(zip(ks, prefixes_of(network.module, network.table, depths), strict=True))
    except CutError:
        return None
    together = {k: prefix for k, prefix in prefixes.items() if prefix is not None}
    if not together:
        return None
    if len(together) < len(ks):
        own = list(together)
        depths = DepthExtractor(network.module, network.table, own, size, channels, folded=True)
    extract = Extractor(
        JoinedDepths(depths),
        (channels, size, size),
        setup.compute.device,
        setup.compute.exact,
        setup.recipe.train.images_per_batch,
    )
    if extract.images_per_pass == 1:
        return None  # at some depth the place of an image in a pass matters; alone, others may not need that
    where, stores, in_use = where_cached(setup), dict[int, FeatureStore](), dict[Path, int]()
    for (k, prefix), length in zip(together.items(), depths.lengths, strict=True):
        rows = DepthRows(prefix, _spec(length), extract.images_per_pass)
        needed = bytes_needed(setup, rows.spec)
        store = open_store(setup, rows, describe_features(setup, k, plain=True), where, needed, in_use)
        if store.folder is not None:
            in_use[store.folder] = needed
        stores[k] = store
    return _Joint(setup, extract, stores)
