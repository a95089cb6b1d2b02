"""The frozen prefix of a phase: it computes features, or reads them from the cache.

In such a phase, training steps and val get features instead of images, and run only the suffix of the
network. Cached and computed features are bit-identical (:mod:`finetune.features.extract`). What is cached,
and where, is decided in :mod:`finetune.training.caching.feature_plan`.
"""

import dataclasses
from collections.abc import Callable, Iterator

from torch import nn

from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import eval_batches
from finetune.data.processes.pool import do_nothing
from finetune.features.cached import CachedFeatures
from finetune.features.cut import cut_network, suffix_graph
from finetune.features.extract import Extractor
from finetune.features.placement import Placement
from finetune.features.store import FeatureStore
from finetune.image.transforms import EvalTransform
from finetune.model.freeze import Freeze
from finetune.training.caching.feature_plan import FeaturePlan
from finetune.training.caching.feature_store import describe_features, open_store
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup


class FrozenPrefix:
    """The frozen layers of one phase, cut off from the rest of the network.

    Attributes:
        suffix: the rest of the network, for training batches.
        evaluation_suffix: the same for val, of the moving average if there is one.

    Args:
        epochs: of the phase, counted through the run.
        freeze: of the phase, in train mode.

    Raises:
        CutError: the network cannot be cut there.
    """

    def __init__(self, setup: Setup, plan: FeaturePlan, epochs: range, freeze: Freeze) -> None:
        self._setup = setup
        self._plan = plan
        self._epochs = epochs
        network, preprocessing = setup.network, setup.card.preprocessing
        pieces = cut_network(network.module, network.table, plan.k)
        self.suffix = pieces.train
        self.evaluation_suffix: nn.Module = pieces.evaluate
        self._averages_differ = False
        if setup.ema is not None:
            self.evaluation_suffix = suffix_graph(setup.ema.module, network.table, plan.k)
            averaged = Freeze(setup.ema.module, network.table, plan.k, setup.recipe.model.batchnorm)
            # If an earlier phase trained these layers, their average differs from them.
            self._averages_differ = averaged.frozen_digests() != freeze.frozen_digests()
        size = preprocessing.image_size
        self._extract = Extractor(
            pieces.prefix,
            (preprocessing.channels, size, size),
            setup.compute.device,
            setup.compute.exact,
            setup.recipe.train.images_per_batch,
        )
        self._stores: dict[tuple[str, bool], FeatureStore] = {}
        self._folders = dict(setup.cache_folders)
        self._train: CachedFeatures | None = None
        self._val: CachedFeatures | None = None
        self._draws: list[tuple[int, int]] = []

    @property
    def caches_train(self) -> bool:
        """Whether training steps read cached features."""
        return self._plan.train.where is not None

    @property
    def serves_val(self) -> bool:
        """Whether val can use the features: not if the first layers of the moving average differ."""
        return not self._averages_differ

    def fill(self, signals: Signals, progress: Callable[[int, int], None]) -> None:
        """Compute the features that are not cached yet, in the order of the images.

        Args:
            progress: receives the number of images done, and of all.

        Raises:
            StoppedError: a signal arrived; the features computed so far stay cached.
            DataError: an image cannot be read.
        """
        loader, plain = self._setup.loader, self._plan.plain
        as_evaluated = EvalTransform(self._setup.card.preprocessing)
        if self._plan.train.where is not None:
            if plain:
                self._draws = [(index, 0) for index in range(len(loader.split))]
            else:
                # An epoch shows one view of every image.
                epochs = range(self._epochs.start, self._epochs.start + self._plan.views)
                self._draws = sorted(
                    draw for epoch in epochs for batch in loader.draws(epoch) for draw in batch
                )
            transform = as_evaluated if plain else loader.transform
            store = self._store(self._plan.train, plain)
            self._train = CachedFeatures(store, self._extract, loader.split, transform, plain=plain)
            self._fill(self._train, self._draws, signals, progress)
        if self._plan.val.where is not None and self.serves_val:
            val = self._setup.source.splits["val"]
            self._val = CachedFeatures(
                self._store(self._plan.val, True), self._extract, val, as_evaluated, plain=True
            )
            self._fill(self._val, [(index, 0) for index in range(len(val))], signals, progress)

    def epoch(self, epoch: int, start: int = 0, check: Callable[[], None] = do_nothing) -> Iterator[Batch]:
        """As :meth:`finetune.data.batches.loaders.TrainLoader.epoch`, with features in place of images."""
        loader = self._setup.loader
        if self._train is not None:
            for draws in loader.draws(epoch, start):
                batch = self._train.batch(draws)
                loader.report_bad_images(batch.bad)
                if len(batch.indices) == 1 and batch.bad:
                    batch = self._train.batch([d for d in draws if d[0] not in batch.indices])
                yield batch
            return
        endless = self._plan.views == 0
        for batch in loader.epoch(epoch, start, check):
            if endless:
                features = self._extract.one_pass(batch.images, self._setup.compute.autocast)
            else:
                features = self._extract.spec.features(self._extract(batch.images))
            yield dataclasses.replace(batch, images=features)

    def train_set(self) -> Batch:
        """The cached features of all views of the training images, as one batch."""
        assert self._train is not None
        batch = self._train.batch(self._draws)
        self._setup.loader.report_bad_images(batch.bad)
        return batch

    def val_batches(self, check: Callable[[], None] = do_nothing) -> Iterator[Batch]:
        """The features of val in order, in batches of the training size; ``check`` as in :meth:`epoch`."""
        size = self._setup.recipe.train.images_per_batch
        if self._val is not None:
            yield from self._val.in_order(size)
            return
        images = eval_batches(
            self._setup.source.splits["val"],
            self._setup.card.preprocessing,
            self._setup.read_options(),
            cache=self._setup.val_decoded,
            check=check,
        )
        for batch in images:
            rows = self._extract(batch.images)
            yield dataclasses.replace(batch, images=self._extract.spec.features(rows))

    def _fill(
        self,
        features: CachedFeatures,
        draws: list[tuple[int, int]],
        signals: Signals,
        progress: Callable[[int, int], None],
    ) -> None:
        features.fill(
            draws,
            workers=self._setup.workers,
            on_bad_image=self._setup.recipe.data.on_bad_image,
            check=signals.check,
            progress=progress,
        )

    def _store(self, placement: Placement, plain: bool) -> FeatureStore:
        assert placement.where is not None
        kind = (placement.where, plain)
        if kind not in self._stores:
            plan = self._plan
            needed = plan.train_bytes if (plan.train.where, plan.plain) == kind else 0
            needed += plan.val_bytes if (plan.val.where, True) == kind else 0
            about = describe_features(self._setup, plan.k, plain=plain)
            store = open_store(self._setup, self._extract, about, placement.where, needed, self._folders)
            if store.folder is not None:
                self._folders[store.folder] = needed
            self._stores[kind] = store
        return self._stores[kind]
