"""The protocol of a backbone library.

A new library is one module in this folder and one entry of ``LIBRARIES`` in :mod:`finetune.recipe.catalog`.
Classes inherit from the protocols for the default behaviour: a network that :mod:`torch.fx` can trace, that
takes images of any size, and that has one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from finetune.image.preprocessing import Preprocessing
from finetune.model.layers import find, shapes
from finetune.model.layers.table import LayerTable
from finetune.model.weights.adapt import Adapt

# Classes of ImageNet-1K, on which most published weights were trained.
SOURCE_CLASSES = 1000


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that a library publishes for a backbone.

    Attributes:
        entries: tensors by name.
        origin: describes the weights in reports.
        classes: the source's class names in the order of its logits; None: unknown.
        file: names the file in error messages; "" for ``origin``.
        has_head: the entries include a head for ``SOURCE_CLASSES`` classes.
    """

    entries: Any
    origin: str
    classes: tuple[str, ...] | None = None
    file: str = ""
    has_head: bool = True


class Backbone(Protocol):
    """One network of a library, named as a recipe names it."""

    name: str

    @property
    def weights_names(self) -> Sequence[str]:
        """Names for ``model.weights``, beside ``default`` and ``none``."""
        return ()

    @property
    def has_fixed_size(self) -> bool:
        """Whether the network is built for one image size and takes no other."""
        return False

    @property
    def auxiliary_heads(self) -> Sequence[str]:
        """Paths of the last layers of auxiliary classifiers, which serve training only."""
        return ()

    def create(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        """Create the network with random weights, drawn from torch's global generator.

        Args:
            num_classes: size of the last layer.
            image_size: side of the images in pixels, for networks of a fixed size; None: the default size.
            auxiliary: include the auxiliary classifiers.

        Raises:
            UserError: the network cannot be built for this image size.
        """
        ...

    def blueprint(
        self, num_classes: int = SOURCE_CLASSES, *, image_size: int | None = None, auxiliary: bool = True
    ) -> nn.Module:
        """Create the network on the meta device: its structure and shapes, without memory."""
        with _EmptyOnMeta():
            module = self.create(num_classes, image_size=image_size, auxiliary=auxiliary)
        return module.to("meta")

    def preprocessing(self, weights: str = "default") -> Preprocessing:
        """The preprocessing that the weights of this name were trained with."""
        ...

    def fetch_weights(self, weights: str = "default") -> PublishedWeights:
        """Fetch or read the published weights of this name.

        Raises:
            WeightsError: they cannot be fetched or read.
        """
        ...

    def find_layers(
        self, module: nn.Module, head_path: str | None = None, *, warn: bool = False
    ) -> LayerTable:
        """Number the layers of the network.

        Args:
            head_path: the module that the head begins with; None: the last linear layer or convolution.
            warn: log a warning if the layers are not cuts of the forward graph.
        """
        return find.find_layers(module, head_path)

    def with_output_shapes(self, module: nn.Module, table: LayerTable, image_size: int) -> LayerTable:
        """Add the output shape of each layer for images of ``image_size`` pixels.

        Raises:
            RuntimeError, ValueError, AssertionError: the network cannot take images of that size.
        """
        return shapes.with_output_shapes(module, table, image_size)

    def head_paths(self, path: str) -> Sequence[str]:
        """Paths of the layers that a new head replaces. ``path`` is the head of the layer table."""
        return (path,)

    def resizer(self, module: nn.Module) -> Adapt | None:
        """A function that resizes a checkpoint's position embeddings; None if the network needs none."""
        return None


class Library(Protocol):
    """A source of backbones."""

    def names(self) -> Sequence[str]:
        """Names of all backbones of the library, without the prefix.

        Raises:
            MissingExtraError: the library is not installed.
        """
        ...

    def backbone(self, name: str) -> Backbone:
        """Return the backbone of this name; ``name`` includes the prefix.

        Raises:
            MissingExtraError: the library is not installed.
            UserError: an unknown name; the message suggests the nearest one.
        """
        ...


_FILLS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_)


class _EmptyOnMeta(TorchFunctionMode):
    """Allocates what ``torch.empty`` allocates on the meta device, and initialises nothing there.

    ``torch.device("meta")`` would move every factory function there, and RegNet's constructor computes its
    widths with tensors whose values it needs.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            kwargs = kwargs | {"device": "meta"}
        elif func in _FILLS and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)
