"""Write a network's weights as safetensors, with ``config.json`` beside them, and read them back."""

import json
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from finetune.checkpoint.card import CARD_KEY, ModelCard
from finetune.checkpoint.storage import NOVELTY, load_weights, read_document, read_tensors
from finetune.deploy.export_format import ExportFormat
from finetune.deploy.output_network import OutputNetwork
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.errors import CheckpointError, ExportError, UserError, printable
from finetune.model.build import published_names, rebuild
from finetune.training.novelty_file import read_reference, reference_tensors

CONFIG = "config.json"


def write_safetensors(
    module: nn.Module, card: ModelCard, path: Path, reference: Tensor | None = None
) -> None:
    """Write the weights of ``module`` to ``path``, the card into its header and into ``config.json``.

    The tensors have the names of the torchvision or timm network, whatever dropout the head has. The features
    that images are compared with go to ``novelty.safetensors``.
    """
    names = published_names(module, card.architecture)
    tensors = {
        names.get(name, name): tensor.detach().contiguous() for name, tensor in module.state_dict().items()
    }
    # Only one metadata entry: safetensors writes several in no fixed order.
    path.write_bytes(safetensors.torch.save(tensors, metadata={CARD_KEY: card.to_json()}))
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    path.with_name(CONFIG).write_text(text, encoding="utf-8")
    if features := reference_tensors(reference):
        path.with_name(NOVELTY).write_bytes(safetensors.torch.save(dict(features)))


def open_safetensors(path: Path) -> TorchClassifier:
    """Rebuild the network that ``config.json`` beside ``path`` describes, and load the weights."""
    config = path.with_name(CONFIG)
    card = ModelCard.from_dict(read_document(config), str(config))
    with safetensors.safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get(CARD_KEY) != card.to_json():
            raise ExportError(f"{printable(path)}: its header and {CONFIG} describe different models.")
    module = rebuild(card.architecture, len(card.classes))
    own_names = {theirs: own for own, theirs in published_names(module, card.architecture).items()}
    tensors = {own_names.get(name, name): tensor for name, tensor in read_tensors(path).items()}
    load_weights(module, tensors, path)
    reference = read_reference(path.with_name(NOVELTY), card)
    return TorchClassifier(OutputNetwork(module.eval(), card, reference), card)


def _check_config(target: Path) -> None:
    if target.name == NOVELTY:
        raise UserError(
            f"{printable(target)}: is the name of a file beside the weights. Choose another name."
        )
    config = target.with_name(CONFIG)
    if not config.exists():
        return
    try:
        ModelCard.from_dict(read_document(config), str(config))
    except CheckpointError:
        raise UserError(
            f"{printable(config)} already exists and does not describe a model of finetune. Choose another "
            "folder."
        ) from None


SAFETENSORS = ExportFormat(write_safetensors, open_safetensors, _check_config)
