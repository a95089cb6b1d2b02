"""Optimizers over parameter groups, and their state by parameter name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finetune.errors import CheckpointError, require_known

# Joins a parameter's name and its state's name in a checkpoint; neither contains it.
SEPARATOR = "|"
# What each optimizer keeps for a parameter.
STATES = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "SGD": {"momentum_buffer"}}


def build_optimizer(
    kind: str, groups: list[dict[str, Any]], *, momentum: float, device: torch.device
) -> torch.optim.Optimizer:
    """SGD or AdamW over the groups of :func:`finetune.model.param_groups.param_groups`.

    Every group keeps its unscheduled rate as ``base_lr``. The fused form is used on CUDA, and of AdamW on the
    CPU too, where it goes over memory once. (SGD's was slower there on ResNet-18.)

    Raises:
        FinetuneError: ``kind`` is neither sgd nor adamw.
    """
    require_known("optimizer", kind, ("sgd", "adamw"))
    groups = [{**group, "base_lr": group["lr"]} for group in groups]
    if kind == "adamw":
        return torch.optim.AdamW(groups, fused=True if device.type in ("cuda", "cpu") else None)
    return torch.optim.SGD(groups, momentum=momentum, fused=True if device.type == "cuda" else None)


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All state tensors, keyed ``parameter|state`` (``layer4.0.conv1.weight|exp_avg``)."""
    tensors = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            for state, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{name}{SEPARATOR}{state}"] = value
    return tensors


def load_named_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give every parameter of ``optimizer`` the state kept under its name; what has none starts afresh.

    This is how momentum outlives a change of phase: a parameter that stays keeps it, a thawed one starts
    at nothing, a frozen one loses it. Another kind of optimizer starts afresh.

    Raises:
        CheckpointError: state of another shape than its parameter's, or not finite.
    """
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for full, value in tensors.items():
        name, _, state = full.rpartition(SEPARATOR)
        by_parameter.setdefault(name, {})[state] = value
    own = STATES[type(optimizer).__name__]
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            kept = by_parameter.get(name, {})
            if set(kept) != own:
                continue  # another kind of optimizer's
            for state, value in kept.items():
                optimizer.state[parameter][state] = _as_torch_keeps_it(state, value, parameter, group)


def _as_torch_keeps_it(state: str, value: Tensor, parameter: Tensor, group: Mapping[str, Any]) -> Tensor:
    if value.shape != (parameter.shape if state != "step" else ()) or not bool(value.isfinite().all()):
        raise CheckpointError(
            f"the optimizer's {state} does not fit its parameter of {tuple(parameter.shape)}"
        )
    if state != "step":
        # In the parameter's own memory format, so that the same kernels run and give the same bits.
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    # AdamW's step count, which stays on the CPU unless the fused form is used.
    return value.to(parameter.device if group.get("fused") else "cpu", copy=True)
