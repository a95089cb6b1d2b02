"""BatchNorm's momentum, set for the length of the run.

A running statistic remembers about 1 / momentum steps. A source network's momentum may be meant for hundreds
of thousands of steps (0.01 in TensorFlow's); in a run of a few hundred the statistics then lag behind the
weights, and evaluation normalises by numbers that belong to no network.
"""

from typing import Literal

from torch import nn

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
