"""L2-SP: weights decay toward their starting values instead of toward zero.

L2-SP (Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", ICML 2018) adds alpha / 2 * |w - w0|^2 over the body and beta / 2 * |w|^2 over the head to the
loss, where w0 are the weights before the run. Here it replaces weight decay and works like the optimizer's
own weight decay: SGD adds alpha * (w - w0) to the gradient, as in the paper. AdamW leaves the gradient alone
and subtracts lr * alpha * (w - w0) from the weights (decoupled, Loshchilov and Hutter 2019), so that Adam's
scaling does not undo it. Both come after gradient clipping. The head has plain weight decay of strength beta.
Parameters without weight decay (biases, norms) are not affected.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class StartPenalty:
    """The penalty on the distance from the starting weights.

    Args:
        start: the starting weights, by parameter name.
        alpha: the strength, at least 0.
    """

    def __init__(self, start: Mapping[str, Tensor], alpha: float) -> None:
        self.start = start
        self.alpha = alpha

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the penalty once, right before ``optimizer.step()``, with gradients unscaled and clipped.

        Affects the groups of the body that have weight decay
        (:func:`finetune.model.param_groups.param_groups`).
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
