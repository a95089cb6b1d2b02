"""How far each layer of a run has moved from where it started.

After Yosinski et al. 2014 and many since: early layers hardly move in fine-tuning, late ones do.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.disk.figure import write_figure
from finetune.disk.regular import DOCUMENT_BYTES, read_regular
from finetune.errors import FinetuneError, RunDirError, printable
from finetune.model.build import Network, build
from finetune.model.digests import weights_digest
from finetune.training.run.files import ENVIRONMENT
from finetune.training.trained import Trained, load_trained


@dataclass(frozen=True)
class Movement:
    """One layer, or the head.

    Attributes:
        number: from 1; the head's is one more than the last layer's.
        name: as `finetune layers` gives it.
        num_parameters: how many numbers it holds.
        moved: |w - w0| / |w0|, Euclidean norms over all its parameters, w0 at the start; None where it
            started at zero.
        is_head: the head is measured against its initial values.
    """

    number: int
    name: str
    num_parameters: int
    moved: float | None
    is_head: bool


def movement(run: Path, which: Literal["best", "last"] = "best") -> list[Movement]:
    """Each layer's, from the first to the head. The start is built again, from the recipe's source weights.

    Raises:
        RunDirError: no run, no checkpoint yet, or the start cannot be had any more.
        CheckpointError: the checkpoint is torn or altered.
    """
    trained = load_trained(run, which)
    network = _start(trained)
    start, now = dict(network.module.named_parameters()), dict(trained.module.named_parameters())
    found = []
    for layer in network.table.layers:
        distance = length = 0.0
        for name in layer.parameters:
            before, after = start[name].detach().double(), now[name].detach().double()
            distance += float((after - before).square().sum())
            length += float(before.square().sum())
        moved = math.sqrt(distance / length) if length else None
        is_head = layer is network.table.head
        found.append(Movement(layer.number, layer.name, layer.num_parameters, moved, is_head))
    return found


def _start(trained: Trained) -> Network:
    recipe, card = trained.recipe, trained.card
    size = card.preprocessing.image_size
    try:
        network = build(
            recipe.model, len(card.classes), seed=recipe.seed, image_size=size, classes=card.classes
        )
    except FinetuneError as error:
        raise RunDirError(
            f"{printable(trained.run)}: the weights that it started from cannot be had any more, so "
            "nothing can be "
            f"compared with them ({error})"
        ) from None
    try:
        environment = json.loads(read_regular(trained.run / ENVIRONMENT, DOCUMENT_BYTES))
        known = environment.get("start_fingerprint")
    except (OSError, ValueError, AttributeError):
        known = None  # nothing to hold the start against
    if known is not None and known != weights_digest(network.module):
        raise RunDirError(
            f"{printable(trained.run)}: model.weights are not what they were when it started, so there is "
            "nothing to "
            f"compare with."
        )
    return network


def plot(found: Sequence[Movement], title: str, path: Path) -> None:
    """Draw the movements as a bar a layer, the first at the top; the format follows from the file's ending.

    Raises:
        UserError: the file cannot be written, or its ending is none that matplotlib knows.
        SaveError: the disk is full or failing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.22 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    labels = ["head" if each.is_head else f"{each.number}  {each.name}" for each in found]
    colours = ["tab:orange" if each.is_head else "tab:blue" for each in found]
    axes.barh(range(len(found)), [each.moved or 0.0 for each in found], color=colours)
    axes.set_yticks(range(len(found)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("distance from the start, relative: |w - w0| / |w0|")
    axes.set_title(printable(title), parse_math=False)
    write_figure(figure, path)
