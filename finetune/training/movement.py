"""Measure how far each layer of a run has moved from its starting weights.

After Yosinski et al. 2014 and many since: early layers hardly move in fine-tuning, late ones do.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from finetune.disk.figure import new_chart, write_figure
from finetune.disk.regular import DOCUMENT_BYTES, read_regular
from finetune.errors import FinetuneError, RunDirError, printable
from finetune.model.build import Network, build
from finetune.model.digests import weights_digest
from finetune.training.run.files import ENVIRONMENT
from finetune.training.trained import Trained, load_trained


@dataclass(frozen=True)
class Movement:
    """The movement of one layer, or of the head.

    Attributes:
        number: from 1; the head has the number after the last layer.
        name: as in `finetune layers`.
        num_parameters: number of scalar parameters.
        moved: |w - w0| / |w0|, Euclidean norms over all its parameters, where w0 is the start; None if the
            start is zero.
        is_head: whether it is the head, which is measured from its initial values.
    """

    number: int
    name: str
    num_parameters: int
    moved: float | None
    is_head: bool


def movement(run: Path, which: Literal["best", "last"] = "best") -> list[Movement]:
    """Measure each layer, from the first to the head. The start is rebuilt from the source weights.

    Raises:
        RunDirError: there is no run or no checkpoint, or the start cannot be rebuilt.
        CheckpointError: the checkpoint is damaged.
    """
    trained = load_trained(run, which)
    return movement_between(start_network(trained), trained.module)


def movement_between(begin: Network, end: nn.Module) -> list[Movement]:
    """Measure each layer between a network and one of the same architecture, on the same device."""
    start, now = dict(begin.module.named_parameters()), dict(end.named_parameters())
    found = []
    for layer in begin.table.layers:
        distance = length = 0.0
        for name in layer.parameters:
            before, after = start[name].detach().double(), now[name].detach().double()
            distance += float((after - before).square().sum())
            length += float(before.square().sum())
        moved = math.sqrt(distance / length) if length else None
        is_head = layer is begin.table.head
        found.append(Movement(layer.number, layer.name, layer.num_parameters, moved, is_head))
    return found


def start_network(trained: Trained) -> Network:
    """Rebuild the network of a run as it was before the first step, on the CPU.

    Raises:
        RunDirError: the source weights cannot be loaded, or have changed.
    """
    recipe, card = trained.recipe, trained.card
    size = card.preprocessing.image_size
    try:
        network = build(
            recipe.model, len(card.classes), seed=recipe.seed, image_size=size, classes=card.classes
        )
    except FinetuneError as error:
        raise RunDirError(
            f"{printable(trained.run)}: the weights that it started from cannot be loaded any more, so "
            f"there is nothing to compare with ({error})"
        ) from None
    try:
        environment = json.loads(read_regular(trained.run / ENVIRONMENT, DOCUMENT_BYTES))
        known = environment.get("start_fingerprint")
    except (OSError, ValueError, AttributeError):
        known = None  # nothing to verify the start with
    if known is not None and known != weights_digest(network.module):
        raise RunDirError(
            f"{printable(trained.run)}: model.weights have changed since it started, so there is nothing to "
            "compare with."
        )
    return network


def plot(found: Sequence[Movement], title: str, path: Path) -> None:
    """Draw one bar per layer, the first at the top. The suffix of ``path`` chooses the format.

    Raises:
        UserError: the file cannot be written, or matplotlib does not know its format.
        SaveError: the disk is full or failing.
    """
    figure, axes = new_chart(7, 1.2 + 0.22 * len(found), title)
    labels = ["head" if each.is_head else f"{each.number}  {each.name}" for each in found]
    colours = ["tab:orange" if each.is_head else "tab:blue" for each in found]
    axes.barh(range(len(found)), [each.moved or 0.0 for each in found], color=colours)
    axes.set_yticks(range(len(found)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("distance from the start, relative: |w - w0| / |w0|")
    write_figure(figure, path)
