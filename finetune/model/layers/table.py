"""The numbered layers of a network, and its head."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One layer, or the head.

    Attributes:
        number: from 1; the head's is one more than the last layer's.
        name: the deepest module that holds it, such as ``layer1.0``.
        parameters: names of the parameters that belong to it.
        modules: paths of the modules that work in this layer alone.
        num_parameters: how many numbers its parameters hold.
        output_shape: of one image, without the batch dimension; None until :func:`with_output_shapes`.
        cut: name of the graph node whose value leaves the layer (of :func:`trace`); None for the head.
    """

    number: int
    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    num_parameters: int
    output_shape: tuple[int, ...] | None = None
    cut: str | None = None


@dataclass(frozen=True)
class LayerTable:
    """The layers of a network in execution order, and its head.

    ``spans`` tells for every module that runs in eval mode the first and last layer it works in.
    """

    body: tuple[Layer, ...]
    head: Layer
    spans: Mapping[str, tuple[int, int]] = field(repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The body's layers, then the head."""
        return (*self.body, self.head)
