"""Write a network as an ONNX file that carries its card."""

import importlib.util
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import CARD_KEY, ModelCard
from finetune.deploy.export_format import ExportFormat, example_input
from finetune.deploy.formats import OPSET
from finetune.deploy.onnx_classifier import INPUT, OnnxClassifier
from finetune.deploy.output_network import OutputNetwork
from finetune.errors import ExportError, MissingExtraError, UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# The IR version that onnxruntime 1.14 reads. The files use nothing of newer versions.
IR_VERSION = 8
# Protocol buffers are limited to 2 GiB; the margin is for the graph.
SINGLE_FILE_BYTES = 2**31 - 2**27


def write_onnx(
    module: nn.Module, card: ModelCard, path: Path, reference: Tensor | None = None, opset: int = OPSET
) -> None:
    """Write ``module`` (eval mode, on the CPU) to ``path``; above 2 GB, the weights go to a file beside it.

    The input ``images`` is float32 (batch, channels, S, S), for any batch size. The outputs are float32:
    ``logits`` (batch, C), ``probabilities`` (batch, C), which are calibrated, and ``novelty`` (batch,) if the
    model knows it. The metadata holds the card as JSON. The file contains no time and no path of this
    machine. Its IR version is the lowest that ``opset`` allows, and at least 8.

    Raises:
        ExportError: torch cannot write this network in ``opset``.
    """
    import onnx

    network = OutputNetwork(module, card, reference)
    with warnings.catch_warnings():
        # torch and onnxscript deprecate each other's functions.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            network,
            (example_input(card),),
            input_names=[INPUT],
            output_names=network.names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the exporter before dynamo returns None
    if (written := program.model.opset_imports.get("")) != opset:
        raise ExportError(
            f"opset {opset}: torch can write this network only as operator set {written}. No file was "
            "written."
        )
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    program.model.ir_version = max(IR_VERSION, needed)
    _remove_node_metadata(program.model)
    program.model.metadata_props[CARD_KEY] = card.to_json()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    program.save(path, external_data=size > SINGLE_FILE_BYTES)


def _remove_node_metadata(model: Any) -> None:
    """Remove the exporter's notes on each node. They include stack traces with paths of this machine."""
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        values = [*graph.inputs, *getattr(graph, "initializers", {}).values()]
        for node in graph.all_nodes():
            node.metadata_props.clear()
            values.extend(node.outputs)
        for value in values:
            value.metadata_props.clear()


def _check_packages(target: Path) -> None:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Exporting to ONNX", package, "onnx")


def _check_opset(target: Path, opset: int) -> None:
    _check_packages(target)
    import onnx

    if opset > (newest := onnx.defs.onnx_opset_version()):
        raise UserError(
            f"opset {opset}: must be at most {newest}, the newest that onnx {onnx.__version__} knows. Most "
            f"runtimes read {OPSET}."
        )


def _with_opset(opset: int) -> ExportFormat:
    return replace(ONNX, write=partial(write_onnx, opset=opset), check=partial(_check_opset, opset=opset))


ONNX = ExportFormat(write_onnx, OnnxClassifier, _check_packages, _with_opset)
