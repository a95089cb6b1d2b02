"""Holding on to the source: weights decay toward where they started instead of toward zero.

L2-SP (Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", ICML 2018) adds alpha / 2 * |w - w0|^2 over the body and beta / 2 * |w|^2 over the head to the
loss, w0 being the weights before the run. Here it takes the place of weight decay, and comes in exactly as
the optimizer's own weight decay does: SGD adds alpha * (w - w0) to the gradient, the paper's penalty; AdamW
leaves the gradient alone and takes lr * alpha * (w - w0) off the weights (decoupled, after Loshchilov
and Hutter 2019), so that Adam's scaling does not undo it. Both come after gradient clipping. The head's share
is plain weight decay of strength beta. What has no weight decay (biases, norms) is not held either.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class StartPenalty:
    """The pull toward the starting weights.

    Args:
        start: the weights to hold on to, by parameter name.
        alpha: its strength, at least 0.
    """

    def __init__(self, start: Mapping[str, Tensor], alpha: float) -> None:
        self.start = start
        self.alpha = alpha

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Pull once; call it right before ``optimizer.step()``, with gradients unscaled and clipped.

        ``optimizer`` holds groups of :func:`finetune.model.param_groups.param_groups`; the body's with weight
        decay are pulled.
        """
        decoupled = isinstance(optimizer, torch.optim.AdamW)
        for group in optimizer.param_groups:
            part, _, kind = group["name"].partition("/")
            if part == "head" or kind != "decay":
                continue
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                away = parameter - self.start[name]
                if decoupled:
                    parameter.sub_(away, alpha=group["lr"] * self.alpha)
                else:
                    parameter.grad.add_(away, alpha=self.alpha)
