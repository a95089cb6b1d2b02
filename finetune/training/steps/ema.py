"""A moving average of the weights (Polyak & Juditsky 1992), with a warm-up that suits short runs."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An average of ``model``'s parameters; its buffers are copies of the model's latest.

    After n updates the decay is min(``decay``, (1 + n) / (10 + n)): a short run would otherwise be averaged
    with its untrained start. A frozen parameter equals its average, and stays so to the bit.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
