"""Build the parts of a phase: its frozen layers, its optimizer and its stepper."""

import torch

from finetune.model.freeze import Freeze, resolve_freeze
from finetune.model.param_groups import GroupRules, param_groups
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.prepare import Setup
from finetune.training.steps.l2_sp import StartPenalty
from finetune.training.steps.loop import Stepper
from finetune.training.steps.optimizer import build_optimizer
from finetune.training.steps.schedule import Rates


def freeze_layers(plan: PhasePlan, setup: Setup) -> Freeze:
    """Freeze the layers of the phase.

    Raises:
        FreezeError: the freeze names no layer.
    """
    network = setup.network
    k = resolve_freeze(plan.freeze, network.table)
    freeze = Freeze(network.module, network.table, k, setup.recipe.model.batchnorm)
    freeze.apply()
    return freeze


def make_optimizer(plan: PhasePlan, setup: Setup) -> torch.optim.Optimizer:
    """Build the optimizer of the phase; its layers must be frozen already."""
    recipe, network = setup.recipe, setup.network
    l2_sp = recipe.train.l2_sp
    assert plan.weight_decay is not None  # only a solved head may leave it open
    rules = GroupRules(
        lr=plan.lr,
        head_lr_mult=plan.head_lr_mult,
        weight_decay=plan.weight_decay,
        decay_bias_and_norm=recipe.train.decay_bias_and_norm,
        layer_decay=plan.layer_decay,
        head_weight_decay=None if l2_sp is None else l2_sp.beta,
    )
    return build_optimizer(
        plan.optimizer,
        param_groups(network.module, network.table, rules),
        momentum=recipe.train.momentum,
        device=setup.compute.device,
    )


def make_stepper(
    setup: Setup, optimizer: torch.optim.Optimizer, schedule: Rates, scaler: torch.amp.GradScaler
) -> Stepper:
    """Build the stepper that the recipe asks for."""
    train = setup.recipe.train
    return Stepper(
        model=setup.network.module,
        optimizer=optimizer,
        criterion=setup.criterion,
        schedule=schedule,
        compute=setup.compute,
        scaler=scaler,
        seed=setup.recipe.seed,
        name=setup.source.splits["train"].name,
        accumulate=train.accumulate,
        grad_clip_norm=train.grad_clip_norm,
        ema=setup.ema,
        start_penalty=None if train.l2_sp is None else StartPenalty(setup.start, train.l2_sp.alpha),
    )
