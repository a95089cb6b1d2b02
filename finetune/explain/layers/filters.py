"""The filters of a network's first convolution, as images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from finetune.errors import FinetuneError
from finetune.model.layers.graph import trace


def first_convolution(module: nn.Module, in_channels: int) -> str | None:
    """The path of the first convolution that runs; None if its input is not the image itself."""
    try:
        paths = [str(node.target) for node in trace(module).nodes if node.op == "call_module"]
    except FinetuneError:
        paths = [path for path, _ in module.named_modules()]
    for path in paths:
        found = module.get_submodule(path)
        if isinstance(found, nn.Conv2d):
            return path if found.in_channels == in_channels and found.groups == 1 else None
    return None


def filters_of(
    modules: Sequence[nn.Module], path: str, most: int
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """The filters of one convolution in several states of a network.

    Args:
        modules: the states, such as before and after training.
        path: of the convolution.
        most: of more filters, those with the largest Euclidean norm in the first state are shown.

    Returns:
        The numbers of the filters, and for each state an array (filters, height, width, 3) of values in 0..1.
        0.5 is a weight of 0. Each filter has one scale in all states, so a filter that grows shows it. Of
        more than three input channels, the first three are red, green and blue; one is grey.
    """
    weights = [_weights(module, path) for module in modules]
    norms = np.sqrt(np.square(weights[0]).sum((1, 2, 3)))
    numbers = sorted(np.argsort(-norms, kind="stable")[:most].tolist())
    chosen = [each[numbers][:, :3].repeat(3 if each.shape[1] == 1 else 1, axis=1) for each in weights]
    largest = np.max([np.abs(each).max((1, 2, 3), keepdims=True) for each in chosen], axis=0)
    scale = np.where(largest == 0, 1, largest)
    return numbers, [(0.5 + 0.5 * each / scale).transpose(0, 2, 3, 1).astype(np.float32) for each in chosen]


def _weights(module: nn.Module, path: str) -> NDArray[np.float32]:
    conv = module.get_submodule(path)
    assert isinstance(conv, nn.Conv2d)
    weights: NDArray[np.float32] = conv.weight.detach().float().cpu().numpy()
    return weights
