"""Write a network as a ``torch.export`` program (.pt2), and read it back."""

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.export_format import ExportFormat, example_input
from finetune.deploy.output_network import OutputNetwork
from finetune.deploy.torch_classifier import TorchClassifier

CARD_FILE = "card.json"


def write_pt2(module: nn.Module, card: ModelCard, path: Path, reference: Tensor | None = None) -> None:
    """Write ``module`` (eval mode, on the CPU) as a program for any batch size, with the card inside.

    The program returns the outputs of :class:`finetune.deploy.output_network.OutputNetwork`.
    """
    network = OutputNetwork(module, card, reference)
    program = torch.export.export(
        network, (example_input(card),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    for node in program.graph.nodes:
        # Stack traces name files of this machine.
        node.meta.pop("stack_trace", None)
    # torch's own writer ends the process if the file cannot be written, so it writes to memory.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={CARD_FILE: card.to_json()})
    path.write_bytes(content.getbuffer())


def open_pt2(path: Path) -> TorchClassifier:
    """Read a file that this process wrote with :func:`write_pt2`. Unsafe for others: torch may unpickle."""
    files = {CARD_FILE: ""}
    program = torch.export.load(path, extra_files=files)
    card = ModelCard.from_dict(json.loads(files[CARD_FILE]), str(path))
    return TorchClassifier(program.module(), card)


PT2 = ExportFormat(write_pt2, open_pt2)
