"""Phases whose first layers are frozen: what those compute is kept where that pays, and then only read.

In such a phase training steps and val see features in place of pictures, and the rest of the network. Whether
the features are read or computed anew makes no difference to any bit (:mod:`finetune.features.extract`).

Where the recipe lets training pictures look a finite number of ways, and in val, the frozen layers run in
fp32: such features are kept, by this run or another, and have to be what a probe and scikit-learn see. Where
looks are endless, and nothing can be kept, they run in the precision of training.
"""

import dataclasses
import hashlib
import json
import logging
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from finetune.data.batch import Batch
from finetune.data.kept import features_folder, make_room
from finetune.data.loaders import eval_batches
from finetune.data.transforms import EvalTransform
from finetune.features.decide import Verdict, Where, decide
from finetune.features.extract import Cost, Extractor, cost
from finetune.features.looks import Looks
from finetune.features.split import NoSplitError, split, suffix_graph
from finetune.features.store import Store
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.training.plan import SOLVER, PhasePlan
from finetune.training.setup import Setup
from finetune.training.signals import Signals

log = logging.getLogger("finetune")

# Of what a store's rows depend on beside the prefix and the pictures; another format is another store.
FORMAT = 2


@dataclass(frozen=True)
class FeaturePlan:
    """What is to become of the features of one phase's frozen layers.

    ``views`` is how many looks of each training picture can be kept (0: they have no end), ``plain`` whether
    that is the one that evaluation has. ``whole`` says why the network cannot be cut and runs whole; None
    where it can.
    """

    k: int
    views: int
    plain: bool
    train: Verdict
    val: Verdict
    whole: str | None = None

    def describe(self) -> str:
        """For the run's facts."""
        if self.whole is not None:
            return f"computed with the rest of the network ({self.whole})"
        if self.train.where == self.val.where:
            return f"of train and val {self.train}"
        return f"of train {self.train}; of val {self.val}"


def plan_features(setup: Setup, plans: Sequence[PhasePlan]) -> dict[int, FeaturePlan]:
    """Settle, by phase, where features are kept, and why; phases that freeze nothing are left out."""
    costs: dict[int, Cost | str] = {}
    found = {}
    for plan in plans:
        k = resolve_freeze(plan.freeze, setup.network.table)
        if k == 0:
            continue
        if k not in costs:
            costs[k] = _cost(setup, k)
        priced = costs[k]
        if isinstance(priced, str):
            nowhere = Verdict(None, priced)
            found[plan.number] = FeaturePlan(k, 0, False, nowhere, nowhere, priced)
            continue
        train, val = setup.source.splits["train"], setup.source.splits["val"]
        plain = _plain(setup, plan)
        views = 1 if plain else setup.recipe.train.augment.views
        refusal = _refusal(setup, plan)
        if refusal is not None or views is None:
            views, on_train = 0, Verdict(None, refusal or "")
        elif plan.optimizer == SOLVER:
            on_train = _decide(setup, priced, views * len(train), math.inf)
            if on_train.where is None:
                on_train = Verdict("memory", f"they are solved at once; {on_train.why}")
        else:
            views = min(views, plan.epochs)
            on_train = _decide(setup, priced, views * len(train), plan.epochs / views)
        on_val = _decide(setup, priced, len(val), plan.epochs)
        found[plan.number] = FeaturePlan(k, views, plain, on_train, on_val)
    return found


def _cost(setup: Setup, k: int) -> Cost | str:
    preprocessing = setup.card.preprocessing
    try:
        return cost(
            setup.network.module,
            setup.network.table,
            k,
            preprocessing.image_size,
            preprocessing.channels,
        )
    except NoSplitError as error:
        return str(error)


def _plain(setup: Setup, plan: PhasePlan) -> bool:
    """Whether training pictures look as they do in evaluation.

    A head is solved on a fixed set of looks; where the other phases' augmentation has no end, on these.
    """
    augment = setup.recipe.train.augment
    return not augment.changes_pictures or (plan.optimizer == SOLVER and augment.views is None)


def _refusal(setup: Setup, plan: PhasePlan) -> str | None:
    """Why what the frozen layers compute of training pictures cannot be kept."""
    train = setup.recipe.train
    if plan.optimizer == SOLVER:
        return None
    if train.augment.mixup_alpha or train.augment.cutmix_alpha:
        return "mixup and cutmix mix pictures, anew in each epoch"
    if _plain(setup, plan):
        return None
    if train.augment.views is None:
        return "augmentation shows a new look each epoch; train.augment.views: 4 would fix four"
    if train.sampler == "balanced":
        return "sampler: balanced draws a picture in more looks than augment.views"
    return None


def _decide(setup: Setup, priced: Cost, rows: int, uses: float) -> Verdict:
    cache, compute = setup.recipe.cache, setup.compute
    return decide(
        cache.where,
        cache.limit_bytes,
        rows=rows,
        uses=uses,
        row_bytes=priced.numbers * torch.float32.itemsize,
        flops=priced.flops,
        pixels=setup.card.preprocessing.image_size**2,
        threads=compute.threads,
        on_gpu=compute.device.type != "cpu",
    )


class Frozen:
    """One phase's frozen layers at work.

    Attributes:
        suffix: what training batches go through.
        evaluated: what val's batches go through, the moving average's where there is one.

    Args:
        freeze: the phase's, in train mode.

    Raises:
        NoSplitError: the network cannot be cut there.
    """

    def __init__(self, setup: Setup, plan: FeaturePlan, epochs: range, freeze: Freeze) -> None:
        self._setup = setup
        self._plan = plan
        self._epochs = epochs
        network, preprocessing = setup.network, setup.card.preprocessing
        pieces = split(network.module, network.table, plan.k)
        self.suffix = pieces.train
        self.evaluated: nn.Module = pieces.evaluate
        self._judges_whole = False
        if setup.ema is not None:
            self.evaluated = suffix_graph(setup.ema.module, network.table, plan.k)
            averaged = Freeze(setup.ema.module, network.table, plan.k, setup.recipe.model.batchnorm)
            # Layers that an earlier phase trained have an average of their own.
            self._judges_whole = averaged.fingerprint() != freeze.fingerprint()
        size = preprocessing.image_size
        self._extract = Extractor(
            pieces.prefix,
            (preprocessing.channels, size, size),
            setup.compute.device,
            setup.compute.exact,
            setup.recipe.train.pictures_a_batch,
        )
        self._stores: dict[tuple[str, bool], Store] = {}
        self._train: Looks | None = None
        self._val: Looks | None = None
        self._draws: list[tuple[int, int]] = []

    @property
    def keeps_train(self) -> bool:
        """Whether training steps read features that are kept."""
        return self._plan.train.where is not None

    @property
    def judges_val(self) -> bool:
        """Whether val can be judged on features; not where the moving average's first layers are its own."""
        return not self._judges_whole

    def fill(self, signals: Signals, tell: Callable[[int, int], None]) -> None:
        """Compute what is to be kept and is not there yet, in the order of the pictures.

        Raises:
            StoppedError: a signal came; what was computed until then is kept.
            DataError: pictures that cannot be read, as the loaders raise it.
        """
        loader, plain = self._setup.loader, self._plan.plain
        as_evaluated = EvalTransform(self._setup.card.preprocessing)
        if self._plan.train.where is not None:
            if plain:
                self._draws = [(index, 0) for index in range(len(loader.split))]
            else:
                # An epoch shows one view of every picture.
                epochs = range(self._epochs.start, self._epochs.start + self._plan.views)
                self._draws = sorted(
                    draw for epoch in epochs for batch in loader.draws(epoch) for draw in batch
                )
            transform = as_evaluated if plain else loader.transform
            store = self._store(self._plan.train, plain)
            self._train = Looks(store, self._extract, loader.split, transform, plain=plain)
            self._fill(self._train, self._draws, signals, tell)
        if self._plan.val.where is not None and self.judges_val:
            val = self._setup.source.splits["val"]
            self._val = Looks(self._store(self._plan.val, True), self._extract, val, as_evaluated, plain=True)
            self._fill(self._val, [(index, 0) for index in range(len(val))], signals, tell)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """As :meth:`finetune.data.loaders.TrainLoader.epoch`, with features in place of pictures."""
        loader = self._setup.loader
        if self._train is not None:
            for draws in loader.draws(epoch, start):
                batch = self._train.batch(draws)
                loader.tell(batch.bad)
                if len(batch.indices) == 1 and batch.bad:
                    batch = self._train.batch([d for d in draws if d[0] not in batch.indices])
                yield batch
            return
        endless = self._plan.views == 0
        for batch in loader.epoch(epoch, start):
            if endless:
                features = self._extract.at_once(batch.images, self._setup.compute.autocast)
            else:
                features = self._extract.spec.features(self._extract(batch.images))
            yield dataclasses.replace(batch, images=features)

    def train_set(self) -> Batch:
        """The features of all looks of the training pictures, which must have been kept, as one batch."""
        assert self._train is not None
        batch = self._train.batch(self._draws)
        self._setup.loader.tell(batch.bad)
        return batch

    def val(self) -> Iterator[Batch]:
        """Val's features in order, in batches of the training's size."""
        size = self._setup.recipe.train.pictures_a_batch
        if self._val is not None:
            yield from self._val.in_order(size)
            return
        pictures = eval_batches(
            self._setup.source.splits["val"],
            self._setup.card.preprocessing,
            batch_size=size,
            workers=self._setup.workers,
            on_bad_image=self._setup.recipe.data.on_bad_image,
            device=self._setup.compute.device,
            decoded=self._setup.val_decoded,
        )
        for batch in pictures:
            rows = self._extract(batch.images)
            yield dataclasses.replace(batch, images=self._extract.spec.features(rows))

    def _fill(
        self, looks: Looks, draws: list[tuple[int, int]], signals: Signals, tell: Callable[[int, int], None]
    ) -> None:
        looks.fill(
            draws,
            workers=self._setup.workers,
            on_bad_image=self._setup.recipe.data.on_bad_image,
            watch=signals.watch,
            tell=tell,
        )

    def _store(self, verdict: Verdict, plain: bool) -> Store:
        assert verdict.where is not None
        if (verdict.where, plain) not in self._stores:
            self._stores[verdict.where, plain] = open_store(
                self._setup, self._extract, self._plan.k, verdict.where, plain=plain
            )
        return self._stores[verdict.where, plain]


def open_store(setup: Setup, extract: Extractor, k: int, where: Where, *, plain: bool) -> Store:
    """The store of what ``extract``, the first ``k`` layers, computes under the recipe's transform.

    On disk the folder's name is a hash of all that the rows depend on beside the pictures, and older folders
    make room within ``cache.limit``.
    """
    about = _about(setup, k, plain)
    if where == "memory":
        return Store(extract.spec, None, about)
    text = json.dumps([extract.fingerprint(), extract.spec.to_dict(), about], sort_keys=True)
    folder = features_folder() / hashlib.sha256(text.encode()).hexdigest()[:32]
    rows = sum(len(each) for each in setup.source.splits.values())
    gone = make_room(rows * extract.spec.nbytes, setup.recipe.cache.limit_bytes, folder)
    if gone:
        log.info("cache: %d older set%s of features made room", gone, "s" if gone > 1 else "")
    return Store(extract.spec, folder, about)


def _about(setup: Setup, k: int, plain: bool) -> dict[str, Any]:
    """All that rows depend on beside prefix and pictures, and what ``finetune cache info`` tells of them."""
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
