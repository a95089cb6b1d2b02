"""Defaults that follow from other keys: learning rates, weight decay, and what phases take from ``train``."""

from typing import Any

from finetune.recipe.train_section import PhaseSection, TrainSection

DEFAULT_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 1e-2}
# The body's rate. From scratch it is ten times as high, since there are no learned features to lose.
DEFAULT_LR = {"sgd": 1e-2, "adamw": 1e-4}
# If only the head trains, AdamW may be faster: no features can be lost.
DEFAULT_HEAD_ONLY_LR = {"sgd": 1e-2, "adamw": 1e-3}
FROM_SCRATCH_LR_FACTOR = 10.0
DEFAULT_HEAD_LR_MULT = 10.0


def resolve_train(train: TrainSection, *, from_scratch: bool) -> TrainSection:
    """Replace the ``auto`` and null values of ``train`` and its phases that follow from other keys."""
    decay = train.weight_decay
    if train.l2_sp is not None:
        decay = 0.0
    elif decay == "auto":
        decay = DEFAULT_WEIGHT_DECAY.get(train.optimizer, "auto")
    resolved = train.model_copy(update={"weight_decay": decay})
    own_decay = train.weight_decay == "auto" and train.l2_sp is None  # each optimizer has its own default
    phases = tuple(_resolve_phase(phase, resolved, own_decay, from_scratch) for phase in train.phases)
    return resolved.model_copy(update={"phases": phases})


def _resolve_phase(
    phase: PhaseSection, train: TrainSection, own_decay: bool, from_scratch: bool
) -> PhaseSection:
    optimizer = phase.optimizer or train.optimizer
    filled: dict[str, Any] = {"optimizer": optimizer}
    if optimizer == "lbfgs":
        filled |= {"epochs": 1, "lr": 1.0}
    elif phase.lr == "auto":
        rates = DEFAULT_HEAD_ONLY_LR if phase.freeze == "backbone" else DEFAULT_LR
        filled["lr"] = rates[optimizer] * (FROM_SCRATCH_LR_FACTOR if from_scratch else 1.0)
    if phase.head_lr_mult == "auto":
        filled["head_lr_mult"] = 1.0 if from_scratch else DEFAULT_HEAD_LR_MULT
    if phase.weight_decay is None or (phase.weight_decay == "auto" and optimizer != "lbfgs"):
        filled["weight_decay"] = (
            DEFAULT_WEIGHT_DECAY.get(optimizer, "auto") if own_decay else train.weight_decay
        )
    if phase.schedule is None:
        filled["schedule"] = train.schedule
    if phase.warmup_epochs is None:
        filled["warmup_epochs"] = train.warmup_epochs
    return phase.model_copy(update=filled)
