"""The features of training images with which others are compared, in a file: ``novelty.safetensors``."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import read_tensors
from finetune.errors import CheckpointError, printable

# The tensor of the file: (M, D) features of length 1, in half precision.
REFERENCE = "reference"


def reference_tensors(reference: Tensor | None) -> Mapping[str, Tensor]:
    """The tensors of the file; empty if there are no features."""
    return {} if reference is None else {REFERENCE: reference}


def read_reference(path: Path, card: ModelCard) -> Tensor | None:
    """Read the features that ``card`` describes; None if it describes none.

    Raises:
        CheckpointError: the file is missing or damaged, or is not what the card describes.
    """
    novelty = card.decision.novelty
    if novelty is None:
        return None
    found = read_tensors(path).get(REFERENCE)
    fits = found is not None and found.ndim == 2 and found.dtype == torch.float16
    if found is None or not fits or len(found) != novelty.images or not bool(found.isfinite().all()):
        raise CheckpointError(
            f"{printable(path)}: does not hold features of {novelty.images} training images, as its card "
            "says."
        )
    return found
