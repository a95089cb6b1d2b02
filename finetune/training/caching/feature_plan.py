"""Plan, per phase, whether and where the features of the frozen layers are cached.

On val, and on train if each image has a finite number of views, the frozen layers run in fp32: the features
can be cached, also by other runs, and must be the same for ``probe`` and scikit-learn. If every epoch shows
new views, nothing can be cached, and the frozen layers run in the precision of training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from finetune.features.cut import CutError
from finetune.features.extract import Cost, cost
from finetune.features.placement import Budget, Placement, Workload, choose_placement, flops_per_second
from finetune.model.freeze import resolve_freeze
from finetune.training.setup.plan import SOLVER, PhasePlan
from finetune.training.setup.prepare import Setup


@dataclass(frozen=True)
class FeaturePlan:
    """The plan for caching the features of a phase's frozen layers.

    Attributes:
        k: number of frozen layers.
        views: the number of views per training image to cache; 0: every epoch shows new views.
        plain: whether training images are preprocessed as in evaluation, without augmentation.
        train, val: where the features are cached, and why.
        train_bytes, val_bytes: their sizes, as ``cache.limit`` counts them.
        whole: why the network cannot be cut and runs whole; None if it can be cut.
    """

    k: int
    views: int
    plain: bool
    train: Placement
    val: Placement
    train_bytes: int = 0
    val_bytes: int = 0
    whole: str | None = None

    def describe(self) -> str:
        """In words, for the user."""
        if self.whole is not None:
            return f"computed with the rest of the network ({self.whole})"
        if self.train.where == self.val.where:
            return f"of train and val {self.train}"
        return f"of train {self.train}; of val {self.val}"


def plan_features(setup: Setup, plans: Sequence[PhasePlan]) -> dict[int, FeaturePlan]:
    """Plan by phase where features are cached. Phases that freeze nothing are left out."""
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
            nowhere = Placement(None, priced)
            found[plan.number] = FeaturePlan(k, 0, False, nowhere, nowhere, whole=priced)
            continue
        train, val = setup.source.splits["train"], setup.source.splits["val"]
        plain = _plain(setup, plan)
        views = 1 if plain else setup.recipe.train.augment.views
        taken = 0
        refusal = _refusal(setup, plan)
        if refusal is not None or views is None:
            views, on_train = 0, Placement(None, refusal or "")
        elif plan.optimizer == SOLVER:
            on_train, taken = _decide(setup, priced, views * len(train), math.inf)
            if on_train.where is None:
                on_train = Placement("memory", f"they are solved at once; {on_train.why}")
        else:
            views = min(views, plan.epochs)
            on_train, taken = _decide(setup, priced, views * len(train), plan.epochs / views)
        on_val, more = _decide(setup, priced, len(val), plan.epochs, taken)
        found[plan.number] = FeaturePlan(k, views, plain, on_train, on_val, taken, more)
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
    except CutError as error:
        return str(error)


def _plain(setup: Setup, plan: PhasePlan) -> bool:
    """Whether training images are preprocessed as in evaluation, without augmentation.

    A head is solved on a fixed set of views. If the other phases show new views in each epoch, it is solved
    on the images as in evaluation.
    """
    augment = setup.recipe.train.augment
    return not augment.changes_images or (plan.optimizer == SOLVER and augment.views is None)


def _refusal(setup: Setup, plan: PhasePlan) -> str | None:
    """Why the features of training images cannot be cached; None if they can."""
    train = setup.recipe.train
    if plan.optimizer == SOLVER:
        return None
    if train.augment.mixup_alpha or train.augment.cutmix_alpha:
        return "mixup and cutmix mix other images in each epoch"
    if _plain(setup, plan):
        return None
    if train.augment.views is None:
        return "augmentation shows a new view each epoch; train.augment.views: 4 would fix four"
    if train.sampler == "balanced":
        return "sampler: balanced draws an image in more views than augment.views"
    return None


def _decide(setup: Setup, priced: Cost, rows: int, uses: float, taken: int = 0) -> tuple[Placement, int]:
    """Where to cache ``rows`` rows, and how many bytes of ``cache.limit`` they take."""
    cache, compute = setup.recipe.cache, setup.compute
    row_bytes = priced.numbers * torch.float32.itemsize
    work = Workload(rows, uses, row_bytes, priced.flops, setup.card.preprocessing.image_size**2)
    speed = flops_per_second(compute.threads, on_gpu=compute.device.type != "cpu")
    verdict = choose_placement(work, Budget(cache.where, cache.limit_bytes, taken), speed)
    return verdict, 0 if verdict.where is None else rows * row_bytes
