"""How near images are to those that a source network was trained on, by what the network itself carries.

No source image is at hand. But every BatchNorm remembers what passed through it in training, and the
source's own classifier says what it takes the images for.
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
    """How far what reaches a network's BatchNorms is from what they remember.

    Of each channel, mean and variance over the images and their places are compared with the running
    statistics, as two normal distributions: the Kullback-Leibler divergence of the first from the second, in
    nats. A layer's shift is the median over its channels, the network's the mean over its layers; 0 for
    images like the source's. (That the statistics tell domains apart: Li et al. 2017, AdaBN.)
    """

    def __init__(self, module: nn.Module) -> None:
        self._norms = [
            each
            for each in module.modules()
            if isinstance(each, _BatchNorm) and each.running_mean is not None
        ]
        self._sums: dict[_BatchNorm, tuple[Tensor, Tensor, int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, whatever the network computes is counted in."""
        hooks = [norm.register_forward_pre_hook(self._take) for norm in self._norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _take(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        values = inputs[0].detach().float()
        number = values.numel() // values.shape[1]
        mean, variance = values.new_zeros(values.shape[1]), values.new_zeros(values.shape[1])
        if number > 1:
            # BatchNorm's own kernels take a tenth of the time that var_mean takes on channels-last maps.
            nn.functional.batch_norm(values, mean, variance, training=True, momentum=1.0)
            variance *= (number - 1) / number  # they leave the unbiased one
        else:
            mean += values.reshape(-1)
        # Over the batches in double precision.
        mean, variance = mean.double(), variance.double()
        total, squares, count = self._sums.get(norm, (0.0, 0.0, 0))
        self._sums[norm] = (
            total + number * mean,
            squares + number * (variance + mean.square()),
            count + number,
        )

    def value(self) -> float | None:
        """The shift; None where the network has no BatchNorm with statistics."""
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
    """The mean of the source classifier's largest probability: (N, classes) logits to 0..1.

    Near what the network has on images of its own kind where the images show what it knows, lower where
    it finds nothing to hold on to. One image's confidence says little, that of many is a measure of how
    much of the target the source covers (Garg et al. 2022 estimate accuracies so).
    """
    shifted = torch.from_numpy(logits).double()
    return float(shifted.softmax(1).max(1).values.mean())


def told_apart(logits: Logits, targets: npt.NDArray[np.int64]) -> float:
    """How much of the target's class the source's own prediction tells: 0 (nothing) to 1 (all of it).

    The mutual information of predicted source class and target class, over the entropy of the target class
    (the uncertainty coefficient of Theil 1970), less what it would be by chance: the mean over shuffled
    targets, since many source classes among few images fit anything.
    """
    predicted = logits.argmax(1)
    generator = np.random.default_rng(0)
    entropy = _entropy(targets)
    if entropy == 0:
        return 0.0
    found = _information(predicted, targets)
    chance = float(np.mean([_information(predicted, generator.permutation(targets)) for _ in range(20)]))
    return float(np.clip((found - chance) / max(entropy - chance, 1e-9), 0.0, 1.0))


def _entropy(labels: npt.NDArray[np.int64]) -> float:
    _, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _information(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    _, pairs = np.unique(np.stack([first, second]), axis=1, return_inverse=True)
    return _entropy(first) + _entropy(second) - _entropy(pairs.reshape(-1).astype(np.int64))
