"""Output shapes of layers, computed on the meta device."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from finetune.model.layers.graph import trace
from finetune.model.layers.table import LayerTable


def with_output_shapes(
    module: nn.Module, table: LayerTable, image_size: int, in_channels: int = 3
) -> LayerTable:
    """Add each layer's ``output_shape`` for images of ``image_size`` pixels.

    Raises:
        RuntimeError: the network cannot take images of that size (torch's message).
    """
    shapes = node_shapes(module, image_size, in_channels)
    body = tuple(replace(layer, output_shape=shapes[layer.cut or ""]) for layer in table.body)
    return replace(table, body=body, head=replace(table.head, output_shape=shapes["output"]))


def node_shapes(module: nn.Module, image_size: int, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the traced graph, by node, in execution order.

    Shapes are without the batch dimension. Runs on the meta device, without memory or arithmetic.

    Raises:
        FinetuneError: the network cannot be traced.
        RuntimeError: the network cannot take images of that size (torch's message).
    """
    shadow = on_meta(module)
    with torch.no_grad():
        recorder = _ShapeRecorder(fx.GraphModule(shadow, trace(shadow)))
        recorder.run(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    return recorder.shapes


def on_meta(module: nn.Module) -> nn.Module:
    """Copy ``module`` to the meta device: shapes without values."""
    # With this memo, deepcopy creates meta parameters without copying the real ones.
    own = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): _on_meta(tensor) for tensor in own})


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


class _ShapeRecorder(fx.Interpreter):
    """Runs a graph and records the shape of every tensor, without the batch dimension."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.module.eval()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n.name] = tuple(value.shape[1:])
        return value
