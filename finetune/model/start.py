"""The weights that training starts from."""

from torch import Tensor, nn

from finetune.model.layers.table import LayerTable


def starting_weights(module: nn.Module, table: LayerTable) -> dict[str, Tensor]:
    """Copy the body's parameters, by name."""
    names = [name for layer in table.body for name in layer.parameters]
    return {name: module.get_parameter(name).detach().clone() for name in names}
