"""BatchNorm's statistics: a momentum for the length of the run, and computing them anew.

A running statistic remembers about 1 / momentum steps. A source network's momentum may be meant for hundreds
of thousands of steps (0.01 in TensorFlow's); in a run of a few hundred the statistics then lag behind the
weights, and evaluation normalises by numbers that belong to no network.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from finetune.errors import require_known
from finetune.model.layers.modes import preserve_modes

# Torch's own default, enough for any run.
MOST = 0.1
# A run should be this many memories long.
MEMORIES = 10


def raise_batchnorm_momentum(
    module: nn.Module, setting: float | Literal["auto", "keep"], steps: int
) -> float | None:
    """Set the momentum of every BatchNorm for a run of ``steps`` optimizer steps.

    Args:
        setting: ``auto`` raises it to 10 / steps where it is less, but not beyond 0.1; ``keep`` leaves it; a
            number, above 0 and up to 1, sets it.
        steps: how long the run is, at least 1.

    Returns:
        The momentum aimed at, or None where nothing changed. A BatchNorm that averages cumulatively (momentum
        None) is left alone.
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
    """Compute the running statistics of some BatchNorms anew, for the weights as they are now.

    Each mean and variance becomes the plain average over ``batches`` (Izmailov et al. 2018; Wu and Johnson
    2021 call it precise BatchNorm). The BatchNorms named normalise by their batch meanwhile, and all else
    runs in eval mode: no dropout. Modes, momenta and step counts are as before afterwards.

    Args:
        paths: of the BatchNorms, which keep running statistics; all others keep theirs untouched.
        batches: images ``(N, 3, S, S)`` on the module's device, all of one N where each is to count the
            same. Batches of less than two images are left out.

    Returns:
        How many batches there were. Without one, or if reading them fails, the statistics stay as they were.
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
