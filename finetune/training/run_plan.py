"""Plan a run before it starts: its phases and caches. Warn of what may fail, and refuse what must."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune.errors import UserError
from finetune.model.batchnorm import raise_batchnorm_momentum
from finetune.model.freeze import Freeze, abbreviate_names, resolve_freeze, untrained_layers
from finetune.training.caching.decoded import DecodedPlan, describe_decoded, plan_decoded
from finetune.training.caching.feature_plan import FeaturePlan, plan_features
from finetune.training.compute.batch_size import warn_of_little_memory
from finetune.training.run.resume import planned_phases
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class RunPlan:
    """The phases of a run and what it caches.

    Attributes:
        phases: in order.
        features: by phase number, how the features of the frozen layers are cached. Phases without frozen
            layers are absent.
        decoded: where decoded images are cached.
        batchnorm_momentum: the least momentum, if the run is too short for the network's own.
    """

    phases: Sequence[PhasePlan] = ()
    features: Mapping[int, FeaturePlan] = field(default_factory=dict)
    decoded: DecodedPlan = field(default_factory=lambda: DecodedPlan(None, ""))
    batchnorm_momentum: float | None = None

    def describe(self) -> dict[str, Any]:
        """The entries of ``environment.json`` that say what is cached, and why."""
        features = {number: plan.describe() for number, plan in self.features.items()}
        return {"features": features, "decoded": describe_decoded(self.decoded)}


def warn_before_training(setup: Setup) -> None:
    """Warn of doubtful keys in the recipe, and of frozen layers that hold random values.

    Raises:
        FreezeError: ``freeze`` names no layer.
    """
    network = setup.network
    weights = network.weights
    loaded = None if weights is None else weights.report.kept
    k = max(resolve_freeze(section.freeze, network.table) for section in setup.recipe.train.phases)
    fresh = untrained_layers(network.table, k, loaded)
    if fresh:
        log.warning(
            "freeze: %d of the first %d layers hold initial values: no weights were loaded into them (%s)",
            len(fresh),
            k,
            abbreviate_names(fresh),
        )
    for warning in setup.recipe.warnings:
        log.warning(warning)


def plan_run(setup: Setup, extensions: Sequence[Mapping[str, Any]]) -> RunPlan:
    """Plan the phases and the caches, and set the BatchNorm momentum for the length of the run.

    Args:
        extensions: where an earlier run in the directory was extended.

    Raises:
        UserError: ``batch_size: 1`` with a BatchNorm that cannot train on a single value.
    """
    recipe = setup.recipe
    phases = planned_phases(setup, extensions)
    _refuse_batch_of_one(setup, phases)
    warn_of_little_memory(recipe.train, setup.network, setup.image, setup.compute, recipe.model.batchnorm)
    steps = sum(phase.steps for phase in phases)
    momentum = raise_batchnorm_momentum(setup.network.module, recipe.model.batchnorm_momentum, steps)
    features = plan_features(setup, phases)
    return RunPlan(phases, features, plan_decoded(setup, phases, features), momentum)


def _refuse_batch_of_one(setup: Setup, plans: Sequence[PhasePlan]) -> None:
    """Try ``batch_size: 1`` on a copy of the network. Larger batches never shrink to one image."""
    if setup.recipe.train.images_per_batch > 1:
        return
    network, side = setup.network, setup.image[-1]
    for plan in plans:
        trial = copy.deepcopy(network.module)
        k = resolve_freeze(plan.freeze, network.table)
        Freeze(trial, network.table, k, setup.recipe.model.batchnorm).train_mode()
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), setup.compute.autocast():
                trial(torch.zeros(1, *setup.image, device=setup.compute.device))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"train.batch_size: 1 gives a BatchNorm of {setup.recipe.model.backbone} a single value "
                f"per channel at {side} px, and it cannot train on that. Use batch_size 2 or more, larger "
                "images (data.image_size), or model.batchnorm: frozen."
            ) from None
