"""Optimizers over parameter groups, and their state by parameter name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.errors import CheckpointError, require_known

Groups = list[dict[str, Any]]
# Joins the name of a parameter and that of its state in a checkpoint; neither contains it.
SEPARATOR = "|"


@dataclass(frozen=True)
class Kind:
    """One kind of optimizer.

    Attributes:
        make: builds it from parameter groups, the recipe's momentum and the device.
        states: the names of the tensors that it stores per parameter.
    """

    type: type[torch.optim.Optimizer]
    make: Callable[[Groups, float, torch.device], torch.optim.Optimizer]
    states: frozenset[str]


def _adamw(groups: Groups, momentum: float, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, fused=True if device.type in ("cuda", "cpu") else None)


def _sgd(groups: Groups, momentum: float, device: torch.device) -> torch.optim.Optimizer:
    # On the CPU the fused form was slower (ResNet-18).
    return torch.optim.SGD(groups, momentum=momentum, fused=True if device.type == "cuda" else None)


# By the name in the recipe.
OPTIMIZERS = {
    "adamw": Kind(torch.optim.AdamW, _adamw, frozenset({"step", "exp_avg", "exp_avg_sq"})),
    "sgd": Kind(torch.optim.SGD, _sgd, frozenset({"momentum_buffer"})),
}


def build_optimizer(
    kind: str, groups: Groups, *, momentum: float, device: torch.device
) -> torch.optim.Optimizer:
    """Build an optimizer over the groups of :func:`finetune.model.param_groups.param_groups`.

    Each group stores its unscheduled learning rate as ``base_lr``.

    Raises:
        FinetuneError: ``kind`` is not in :data:`OPTIMIZERS`.
    """
    require_known("optimizer", kind, list(OPTIMIZERS))
    groups = [{**group, "base_lr": group["lr"]} for group in groups]
    return OPTIMIZERS[kind].make(groups, momentum, device)


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All state tensors, under ``parameter|state`` (``layer4.0.conv1.weight|exp_avg``)."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            for state, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}{SEPARATOR}{state}"] = value
    return tensors


def load_named_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of each parameter by name.

    So the state survives a change of phase. A parameter without stored state, such as one that was frozen
    before, starts without. State of another kind of optimizer is ignored.

    Raises:
        CheckpointError: state is not finite, or its shape is not that of its parameter.
    """
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, state = full.rpartition(SEPARATOR)
        by_parameter.setdefault(name, {})[state] = value
    states = next(kind.states for kind in OPTIMIZERS.values() if isinstance(optimizer, kind.type))
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            stored = by_parameter.get(name, {})
            if set(stored) != states:
                continue  # of another kind of optimizer
            for state, value in stored.items():
                optimizer.state[parameter][state] = _in_place(state, value, parameter, group)


def _in_place(state: str, value: Tensor, parameter: Tensor, group: Mapping[str, Any]) -> Tensor:
    if value.shape != (parameter.shape if state != "step" else ()) or not bool(value.isfinite().all()):
        raise CheckpointError(
            f"the optimizer's {state} does not fit its parameter of {tuple(parameter.shape)}"
        )
    if state != "step":
        # In the memory format of the parameter, so that the same kernels run and give the same bits.
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    # AdamW's step count: on the CPU, except in the fused form.
    return value.to(parameter.device if group.get("fused") else "cpu", copy=True)
