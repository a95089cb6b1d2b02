"""A network -> an ONNX file that carries its own description."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.deploy.onnx_classifier import CARD_KEY, INPUT, OUTPUT
from finetune.training.card import ModelCard

# In the middle of what onnxruntime has understood since 1.14, and what torch's exporter writes natively.
OPSET = 18
# Protocol buffers end at 2 GiB; the margin is for the graph.
SINGLE_FILE_BYTES = 2**31 - 2**27
# Any size other than 0 and 1, which tracing would take for constants.
EXAMPLE_BATCH = 2


def write_onnx(module: nn.Module, card: ModelCard, path: Path) -> None:
    """Write ``module`` (eval mode, on the CPU) to ``path``; beyond 2 GB the weights go into a file beside it.

    Input ``images``: float32 (batch, channels, S, S); output ``logits``: float32 (batch, C); any batch. The
    card is in the metadata, as JSON. No time and no path of this machine goes into the file.
    """
    with warnings.catch_warnings():
        # Deprecations inside torch and onnxscript are between the two of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            (example(card),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None only for the exporter before dynamo
    _forget_origin(program.model)
    program.model.metadata_props[CARD_KEY] = card_json(card)
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    program.save(path, external_data=size > SINGLE_FILE_BYTES)


def example(card: ModelCard) -> torch.Tensor:
    """Input to trace with; its values don't matter."""
    size, channels = card.preprocessing.image_size, card.preprocessing.channels
    return torch.zeros(EXAMPLE_BATCH, channels, size, size)


def card_json(card: ModelCard) -> str:
    return json.dumps(card.to_dict(), sort_keys=True)


def _forget_origin(model: Any) -> None:
    """Drop what the exporter notes about each node, stack traces with this machine's paths among it."""
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        values = [*graph.inputs, *getattr(graph, "initializers", {}).values()]
        for node in graph.all_nodes():
            node.metadata_props.clear()
            values.extend(node.outputs)
        for value in values:
            value.metadata_props.clear()
