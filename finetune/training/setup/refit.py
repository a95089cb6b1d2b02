"""The objects of a refit: training once more from the start, on the images of train and val together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finetune.data.dataset import Source, Split
from finetune.data.images import JoinedImages
from finetune.training.setup.plan import PhasePlan, plan_phases
from finetune.training.setup.prepare import Setup, make_loader, prepare


def refit_setup(setup: Setup) -> Setup:
    """Build everything anew for a refit: the network from its source weights, and a loader of train and val.

    Its val split is empty: no epoch is evaluated, because val is trained on.
    """
    return prepare(setup.recipe, _together(setup.source), setup.compute, quiet=True)


def refit_phases(setup: Setup, epochs: Sequence[int]) -> list[PhasePlan]:
    """Plan the phases of a refit.

    They follow the phases of the recipe, with the next numbers. Each has the schedule that it has in the
    recipe, and ends after its entry of ``epochs``: where the best epoch was reached.

    Args:
        setup: of the training before the refit.
        epochs: of each phase, up to the one with the best epoch.
    """
    train = setup.recipe.train
    together = make_loader(setup.recipe, _together(setup.source), setup.card.preprocessing, setup.compute)
    plans = plan_phases(train, together.batches_per_epoch)
    return [
        replace(
            plan,
            number=len(train.phases) + plan.number,
            steps=min(plan.steps, count * plan.steps_per_epoch),
            is_refit=True,
        )
        for plan, count in zip(plans, epochs, strict=False)
    ]


def _together(source: Source) -> Source:
    train, val = source.splits["train"], source.splits["val"]
    groups = None
    if train.groups is not None and val.groups is not None:
        groups = np.concatenate([train.groups, val.groups])
    joined = Split(
        JoinedImages([train.images, val.images]), np.concatenate([train.targets, val.targets]), groups
    )
    return replace(source, splits={**source.splits, "train": joined, "val": val.subset([])})
