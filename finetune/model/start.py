"""Where training starts from, and how far it has gone."""

import hashlib

import torch
from torch import Tensor, nn

from finetune.model.layers import LayerTable


def starting_weights(module: nn.Module, table: LayerTable) -> dict[str, Tensor]:
    """Copies of the body's parameters, by name."""
    names = [name for layer in table.body for name in layer.parameters]
    return {name: module.get_parameter(name).detach().clone() for name in names}


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of every parameter's name and values: the same on every device and in every memory format."""
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        plain = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    return digest.hexdigest()
