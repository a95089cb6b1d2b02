"""SHA-256 digests of tensors: equal on every device and in every memory format."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(_data(tensor)).hexdigest()


def named_digest(tensors: Iterable[tuple[str, Tensor]], preamble: str = "") -> str:
    """SHA-256 of a text, then of each tensor's name, type, shape and values."""
    digest = hashlib.sha256(preamble.encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_data(tensor))
    return digest.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of every parameter of a network."""
    return named_digest(module.named_parameters())


def _data(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return plain.numpy().data
