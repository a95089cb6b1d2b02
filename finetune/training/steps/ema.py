"""A moving average of the weights (Polyak & Juditsky 1992), with a warm-up that suits short runs."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Average the parameters of ``model``; buffers are copied from its latest state.

    After n updates the decay is min(``decay``, (1 + n) / (10 + n)). Otherwise the average of a short run
    would contain its untrained start. The average of a frozen parameter is bit-identical to the parameter.
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
