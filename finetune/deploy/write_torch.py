"""A network -> files for torch: a ``torch.export`` program, or safetensors; and back, to check them."""

import io
import json
import shutil
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import load_weights, read_document, read_tensors
from finetune.deploy.onnx_classifier import CARD_KEY
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.deploy.write_onnx import card_json, example
from finetune.errors import ExportError, printable
from finetune.model.build import published_names, rebuild

CARD_FILE = "card.json"
CONFIG = "config.json"


def write_pt2(module: nn.Module, card: ModelCard, path: Path) -> None:
    """Write ``module`` (eval mode, on the CPU) as a program of any batch size, the card in ``card.json``."""
    program = torch.export.export(
        module, (example(card),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    for node in program.graph.nodes:
        # Where in which file of this machine the operation was called.
        node.meta.pop("stack_trace", None)
    # Into memory first: where a file cannot be written, torch's writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={CARD_FILE: card_json(card)})
    path.write_bytes(content.getbuffer())


def open_pt2(path: Path) -> TorchClassifier:
    """Read back what :func:`write_pt2` wrote. For files of this process only: torch may unpickle."""
    files = {CARD_FILE: ""}
    program = torch.export.load(path, extra_files=files)
    card = ModelCard.from_dict(json.loads(files[CARD_FILE]), str(path))
    return TorchClassifier(program.module(), card, torch.device("cpu"))


def write_safetensors(module: nn.Module, card: ModelCard, path: Path) -> None:
    """Write ``module``'s weights to ``path``, the card in its header, and ``config.json`` beside it.

    The entries have the names that torchvision or timm has for them, whatever dropout the head has.
    """
    names = published_names(module, card.architecture)
    tensors = {
        names.get(name, name): tensor.detach().contiguous() for name, tensor in module.state_dict().items()
    }
    # One entry only: the order of several is not the same from one file to the next.
    safetensors.torch.save_file(tensors, path, metadata={CARD_KEY: card_json(card)})
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    config = path.with_name(CONFIG)
    config.write_text(text, encoding="utf-8")
    # safetensors makes files that only their owner may read.
    shutil.copymode(config, path)


def open_safetensors(path: Path) -> TorchClassifier:
    """Rebuild the network that ``config.json`` beside ``path`` describes and load the weights.

    Raises:
        CheckpointError: the files don't fit each other.
        ExportError: the header describes another model than ``config.json``.
    """
    config = path.with_name(CONFIG)
    card = ModelCard.from_dict(read_document(config), str(config))
    with safetensors.safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get(CARD_KEY) != card_json(card):
            raise ExportError(f"{printable(path)}: its header and {CONFIG} describe different models.")
    module = rebuild(card.architecture, len(card.classes))
    own_names = {theirs: own for own, theirs in published_names(module, card.architecture).items()}
    tensors = {own_names.get(name, name): tensor for name, tensor in read_tensors(path).items()}
    load_weights(module, tensors, path)
    return TorchClassifier(module.eval(), card, torch.device("cpu"))
