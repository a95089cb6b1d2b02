"""How similar images are to those that a source network was trained on, measured with the network alone.

The source images are not available. But every BatchNorm keeps the statistics of its inputs during training,
and the source's own classifier makes predictions for the images.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Logits = npt.NDArray[np.float32]


class Shift:
    """Measures how much the inputs of a network's BatchNorms differ from their running statistics.

    For each channel, the mean and variance over images and positions are compared with the running statistics
    as two normal distributions, by the Kullback-Leibler divergence of the first from the second, in nats. The
    shift of a layer is the median over its channels, that of the network the mean over its layers. It is 0
    for images like the source's. (The statistics distinguish domains: Li et al. 2017, AdaBN.)
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [
            each
            for each in module.modules()
            if isinstance(each, _BatchNorm) and each.running_mean is not None
        ]
        self._sums: dict[_BatchNorm, tuple[Tensor, Tensor, int]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the inputs of all passes within."""
        hooks = [norm.register_forward_pre_hook(self._record) for norm in self._norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _record(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        values = inputs[0].detach().float()
        number = values.numel() // values.shape[1]
        mean, variance = values.new_zeros(values.shape[1]), values.new_zeros(values.shape[1])
        if number > 1:
            # On channels-last maps, BatchNorm's kernels take a tenth of the time of var_mean.
            nn.functional.batch_norm(values, mean, variance, training=True, momentum=1.0)
            variance *= (number - 1) / number  # they compute the unbiased variance
        else:
            mean += values.reshape(-1)
        # Batches are summed in double precision.
        mean, variance = mean.double(), variance.double()
        total, squares, count = self._sums.get(norm, (0.0, 0.0, 0))
        self._sums[norm] = (
            total + number * mean,
            squares + number * (variance + mean.square()),
            count + number,
        )

    def value(self) -> float | None:
        """Return the shift; None if the network has no BatchNorm with running statistics."""
        shifts = [self._layer(norm, *sums) for norm, sums in self._sums.items()]
        return sum(shifts) / len(shifts) if shifts else None

    @staticmethod
    def _layer(norm: _BatchNorm, total: Tensor, squares: Tensor, count: int) -> float:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = total / count
        variance = (squares / count - mean.square()).clamp_min(0)
        source = norm.running_var.double() + norm.eps
        ratio = (variance + norm.eps) / source
        divergence = 0.5 * (ratio + (mean - norm.running_mean.double()).square() / source - 1 - ratio.log())
        return float(divergence.median())


def confidence(logits: Logits) -> float:
    """Average the largest probability over the images: (N, classes) logits to 0..1.

    It is high if the source network knows the content of the images. For a single image it says little; its
    mean over many images measures how much of the target the source covers (Garg et al. 2022 estimate
    accuracies this way).
    """
    shifted = torch.from_numpy(logits).double()
    return float(shifted.softmax(1).max(1).values.mean())


def told_apart(logits: Logits, targets: npt.NDArray[np.int64]) -> float:
    """Measure how well the predicted source class determines the target class: 0 (not at all) to 1 (fully).

    This is the mutual information of predicted source class and target class, divided by the entropy of the
    target class (the uncertainty coefficient of Theil 1970), corrected for chance: many source classes fit
    anything for few images. The chance level is the mean over shuffled targets.
    """
    from scipy.stats import entropy as entropy_of
    from sklearn.metrics import mutual_info_score

    predicted = logits.argmax(1)
    generator = np.random.default_rng(0)
    entropy = float(entropy_of(np.unique(targets, return_counts=True)[1]))
    if entropy == 0:
        return 0.0
    found = mutual_info_score(predicted, targets)
    chance = np.mean([mutual_info_score(predicted, generator.permutation(targets)) for _ in range(20)])
    return float(np.clip((found - chance) / max(entropy - chance, 1e-9), 0.0, 1.0))
