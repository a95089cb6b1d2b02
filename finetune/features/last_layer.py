"""The input of the last layer of a head: the features from which a network computes its logits."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Tapped:
    """A network with a module that does nothing before the last layer of its head.

    The network is traced before it runs, and only such a module is sure to stay one step of the graph: a
    cosine classifier does not. A forward hook on ``tap`` sees the features.

    Attributes:
        module: computes what the network computes, and shares its layers.
        tap: the module.
        channels_first: whether the features have their channels in axis 1: the input of a convolution has.
    """

    module: nn.Module
    tap: nn.Identity
    channels_first: bool

    def rows(self, features: Tensor) -> Tensor:
        """Convert features to (N, D). Maps and tokens are averaged over their places."""
        last = features.ndim if self.channels_first else features.ndim - 1
        places = tuple(range(2 if self.channels_first else 1, last))
        return features.mean(places) if places else features

    def record(self) -> "Recorded":
        """Keep the features of all images that pass from now on."""
        recorded = Recorded([])
        self.tap.register_forward_hook(
            lambda module, given, features: recorded.batches.append(self.rows(features).float().cpu().numpy())
        )
        return recorded


@dataclass(frozen=True)
class Recorded:
    """The features of images that passed a network, one (N, D) float32 array per batch."""

    batches: list[NDArray[np.float32]]

    def take(self) -> NDArray[np.float32]:
        """Return the features (N, D) of the images since the last call."""
        rows = np.concatenate(self.batches)
        self.batches.clear()
        return rows


def tap_last_layer(module: nn.Module, architecture: dict[str, Any]) -> Tapped:
    """Return ``module`` with a tap; ``module`` itself does not change.

    Args:
        architecture: of the card that describes the network.
    """
    path = str(architecture["head"]["path"])
    head = module.get_submodule(path)
    while isinstance(head, nn.Sequential):
        path = f"{path}.{len(head) - 1}"
        head = head[-1]
    tap = nn.Identity().train(head.training)
    tapped = nn.Sequential(tap, head).train(head.training)
    return Tapped(_with_submodule(module, path.split("."), tapped), tap, isinstance(head, nn.Conv2d))


def _with_submodule(module: nn.Module, path: list[str], replacement: nn.Module) -> nn.Module:
    """A copy of ``module`` with another submodule at ``path``. All other modules are shared."""
    if not path:
        return replacement
    changed = copy.copy(module)
    submodule = _with_submodule(module.get_submodule(path[0]), path[1:], replacement)
    changed._modules = {**module._modules, path[0]: submodule}
    return changed
