"""BatchNorm in short runs: a momentum that fits the run's length, and recomputed statistics.

A running statistic averages over about 1 / momentum steps. The momentum of a source network may suit hundreds
of thousands of steps (0.01 in TensorFlow's networks). In a run of a few hundred steps the statistics then lag
behind the weights, and evaluation normalises with outdated values.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.errors import require_known
from finetune.model.layers.modes import preserve_modes

# torch's default, large enough for any run.
MOST = 0.1
# A run should be this many times longer than 1 / momentum.
MEMORIES = 10


def raise_batchnorm_momentum(
    module: nn.Module, setting: float | Literal["auto", "keep"], steps: int
) -> float | None:
    """Set the momentum of every BatchNorm for a run of ``steps`` optimizer steps.

    Args:
        setting: ``auto`` raises a smaller momentum to 10 / steps, at most 0.1. ``keep`` changes nothing. A
            number, above 0 and up to 1, becomes the momentum.
        steps: length of the run, at least 1.

    Returns:
        The new momentum, or None if nothing changed. A BatchNorm with a cumulative average (momentum None)
        does not change.
    """
    if not isinstance(setting, int | float):
        require_known("batchnorm_momentum", setting, ("auto", "keep"))
    if setting == "keep":
        return None
    least = min(MOST, MEMORIES / steps)
    changed = False
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.momentum is not None:
            momentum = max(each.momentum, least) if setting == "auto" else setting
            changed = changed or momentum != each.momentum
            each.momentum = momentum
    if not changed:
        return None
    return least if setting == "auto" else setting


@torch.no_grad()
def recalibrate(module: nn.Module, paths: Sequence[str], batches: Iterable[Tensor]) -> int:
    """Recompute the running statistics of some BatchNorms for the current weights.

    Each mean and variance becomes the average over ``batches`` (Izmailov et al. 2018; Wu and Johnson 2021
    call this precise BatchNorm). Meanwhile these BatchNorms normalise with the statistics of the batch, and
    everything else runs in eval mode. Modes, momenta and step counts are restored afterwards.

    Args:
        paths: the BatchNorms to recompute. They must track running statistics.
        batches: images ``(N, 3, S, S)`` on the module's device. Batches of equal size count equally. Batches
            of fewer than two images are skipped.

    Returns:
        The number of batches used. If it is 0, or reading the batches fails, the statistics do not change.
    """
    norms: list[Any] = [module.get_submodule(path) for path in paths]
    before = [(n.momentum, {name: b.clone() for name, b in n.named_buffers()}) for n in norms]
    used = 0
    whole = False
    try:
        with preserve_modes(module):
            module.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.training = True
            for images in batches:
                if len(images) > 1:
                    module(images)
                    used += 1
        whole = used > 0
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                if not whole or name == "num_batches_tracked":
                    getattr(norm, name).copy_(buffer)
    return used
