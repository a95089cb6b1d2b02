"""The numbered layers of a network, and its head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from finetune.errors import FinetuneError


@dataclass(frozen=True)
class Layer:
    """One layer, or the head.

    Attributes:
        number: from 1. The head's number follows the last layer's.
        name: the deepest module that contains the layer, such as ``layer1.0``.
        parameters: names of the layer's parameters.
        modules: paths of the modules that work in this layer only.
        num_parameters: number of elements of the parameters.
        output_shape: for one image, without the batch dimension; None if not computed.
        cut: name of the graph node whose value leaves the layer; None for the head, or without a graph.
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

    ``spans`` maps every module that runs in eval mode to the first and the last layer that it works in.
    """

    body: tuple[Layer, ...]
    head: Layer
    spans: Mapping[str, tuple[int, int]] = field(repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The body's layers, then the head."""
        return (*self.body, self.head)


def tabulate(
    module: nn.Module,
    names: Sequence[str],
    owner: Mapping[str, int],
    spans: Mapping[str, tuple[int, int]],
    cuts: Sequence[str | None],
) -> LayerTable:
    """Make the table of a network.

    Args:
        names: of the layers, the head's last.
        owner: number of the layer of each parameter, in the order of the table.
        spans: as in the table.
        cuts: of the layers.

    Raises:
        FinetuneError: a layer has no parameter.
    """
    layers = []
    for number, (name, cut) in enumerate(zip(names, cuts, strict=True), start=1):
        sizes = {each: module.get_parameter(each).numel() for each, its in owner.items() if its == number}
        if not sizes:
            raise FinetuneError(f"internal error: layer {number} ({name}) has no parameter")
        modules = tuple(path for path, span in spans.items() if path and span == (number, number))
        layers.append(Layer(number, name, tuple(sizes), modules, sum(sizes.values()), cut=cut))
    return LayerTable(tuple(layers[:-1]), layers[-1], spans)
