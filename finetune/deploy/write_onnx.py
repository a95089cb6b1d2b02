"""A network -> an ONNX file that carries its own description."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.onnx_classifier import CARD_KEY, INPUT, OUTPUT
from finetune.errors import ExportError, UserError

# What torch's exporter writes natively, and onnxruntime has understood since 1.14 (February 2023). Converters
# to an older one give up on most networks, so none is written.
OPSET = 18
# What onnxruntime 1.14 reads. An operator set may ask for a newer one; the files use nothing else of those.
IR_VERSION = 8
# Protocol buffers end at 2 GiB; the margin is for the graph.
SINGLE_FILE_BYTES = 2**31 - 2**27
# Any size other than 0 and 1, which tracing would take for constants.
EXAMPLE_BATCH = 2


def check_opset(opset: int) -> None:
    """Refuse what cannot be written here, before any work is done.

    Raises:
        UserError: an operator set that is older than torch's exporter writes, or newer than onnx knows.
    """
    import onnx

    if opset < OPSET:
        raise UserError(
            f"--opset {opset}: at least {OPSET}, the oldest that torch's exporter writes. onnxruntime has "
            "read it since 1.14 (2023)."
        )
    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise UserError(
            f"--opset {opset}: at most {newest}, the newest that onnx {onnx.__version__} knows. Runtimes lag "
            f"behind; {OPSET} is read by most."
        )


def write_onnx(module: nn.Module, card: ModelCard, path: Path, opset: int = OPSET) -> None:
    """Write ``module`` (eval mode, on the CPU) to ``path``; beyond 2 GB the weights go into a file beside it.

    Input ``images``: float32 (batch, channels, S, S); output ``logits``: float32 (batch, C); any batch. The
    card is in the metadata, as JSON. No time and no path of this machine goes into the file. Its IR version
    is the lowest that goes with ``opset``, and at least 8.

    Raises:
        ExportError: torch cannot bring this network to ``opset``.
    """
    import onnx

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
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None only for the exporter before dynamo
    if (written := program.model.opset_imports.get("")) != opset:
        raise ExportError(
            f"--opset {opset}: torch can write this network as operator set {written} only. No file was "
            "written."
        )
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    program.model.ir_version = max(IR_VERSION, needed)
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
