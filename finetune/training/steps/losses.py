"""Losses for classes of uneven size. Without their extra term, both are torch's cross-entropy."""

import torch
from torch import Tensor, nn


class LogitAdjustedLoss(nn.CrossEntropyLoss):
    """Cross-entropy of the logits plus ``offsets`` (Menon et al. 2021, equation 10).

    With offsets of tau times the log of each class's frequency, the network learns logits from which the
    frequencies are taken out. Evaluation and prediction see these logits, without the offsets.

    Args:
        offsets: (C,), one per class.
        weight, label_smoothing: as of :class:`torch.nn.CrossEntropyLoss`.
    """

    offsets: Tensor

    def __init__(self, offsets: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(weight=weight, label_smoothing=label_smoothing)
        self.register_buffer("offsets", offsets)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss.

        Args:
            input: logits (N, C).
            target: (N,) class numbers, or (N, C) probabilities.
        """
        return super().forward(input.float() + self.offsets, target)


class FocalLoss(nn.CrossEntropyLoss):
    """Focal loss (Lin et al. 2017): each term of the cross-entropy times (1 - p) to the power ``gamma``.

    p is the probability of the term's class, so images that are classified well count less. For targets that
    are probabilities, the loss is the sum over the classes of target times term. Weights and means are as in
    torch's cross-entropy, which is the case of ``gamma`` 0.

    Args:
        gamma: 0 or more.
        weight, label_smoothing: as of :class:`torch.nn.CrossEntropyLoss`.
    """

    def __init__(self, gamma: float, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(weight=weight, label_smoothing=label_smoothing)
        self.gamma = gamma

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss; arguments as of :class:`LogitAdjustedLoss`."""
        logs = input.float().log_softmax(1)
        classes = logs.shape[1]
        # 1 - p, without cancellation. Where it rounds to 0, the derivative of its power has no finite value.
        rest = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).eps)
        terms = -logs * rest**self.gamma
        total = torch.tensor(float(len(logs)), device=logs.device)
        if not target.is_floating_point():
            if self.weight is not None:
                total = self.weight[target].sum()
            target = nn.functional.one_hot(target, classes).to(logs.dtype)
        target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.weight is not None:
            terms = terms * self.weight
        return (terms * target).sum() / total
