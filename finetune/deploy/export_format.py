"""The parts of an export format: how to write a file, read it back, and check early that it can work.

A format is one file in this room, one entry in :data:`finetune.deploy.export.FORMATS`, and one name in
:mod:`finetune.deploy.formats`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.predict import Classifier

# Any batch size but 0 and 1, which tracing would take for constants.
EXAMPLE_BATCH = 2


@dataclass(frozen=True)
class ExportFormat:
    """One export format.

    Attributes:
        write: writes a module (eval mode, on the CPU), its card and the features that images are compared
            with, or None, to a path; may put files beside it.
        reopen: reads that file back, to compare it with the module.
        check: raises a UserError if the format cannot be written to a path; runs before any work.
        with_opset: the same format with another ONNX operator set; None if the format has none.
    """

    write: Callable[[nn.Module, ModelCard, Path, Tensor | None], None]
    reopen: Callable[[Path], Classifier]
    check: Callable[[Path], None] = lambda target: None
    with_opset: "Callable[[int], ExportFormat] | None" = None


def example_input(card: ModelCard) -> torch.Tensor:
    """A batch to trace the network with. Its values do not matter."""
    size, channels = card.preprocessing.image_size, card.preprocessing.channels
    return torch.zeros(EXAMPLE_BATCH, channels, size, size)
