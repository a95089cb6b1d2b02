"""The working point that a run keeps: ``RUN/working_point.json``. Torch-free.

The file holds the SHA-256 of the weights and the temperature that the working point was chosen with. It is
applied to these only: after another training, the same threshold means something else.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.manifest import MANIFEST
from finetune.decision.working_point import WorkingPoint, is_number, read_working_point
from finetune.disk.atomic import write_atomic
from finetune.disk.outputs import write_errors_for
from finetune.disk.regular import DOCUMENT_BYTES, read_regular
from finetune.errors import CheckpointError, printable
from finetune.training.run.files import WORKING_POINT

FORMAT = 1
_WEIGHTS = "model.safetensors"

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class KeptPoint:
    """A working point that a run keeps.

    Attributes:
        point: the threshold or the costs.
        weights: the SHA-256 of the weights that it was chosen with.
        temperature: by which the logits were divided then.
        val: what it does on val, as ``finetune threshold --json`` prints it.
    """

    point: WorkingPoint
    weights: str
    temperature: float
    val: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, folder: Path, card: ModelCard) -> bool:
        """Whether it was chosen with the weights and the temperature of the checkpoint in ``folder``."""
        return (self.weights, self.temperature) == (weights_of(folder), card.decision.calibration.temperature)


def weights_of(folder: Path) -> str:
    """The SHA-256 of the weights of a checkpoint, as its manifest names it.

    Raises:
        CheckpointError: the manifest cannot be read.
    """
    try:
        return str(json.loads(read_regular(folder / MANIFEST, DOCUMENT_BYTES))["sha256"][_WEIGHTS])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{printable(folder / MANIFEST)}: cannot be read ({error}).") from None


def read_kept_point(run: Path) -> KeptPoint | None:
    """Read the working point that a run keeps; None if it keeps none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = run / WORKING_POINT
    try:
        value = json.loads(read_regular(path, DOCUMENT_BYTES))
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ValueError(f"is not a working point of format {FORMAT}")
        point, weights, temperature, val = (
            value.get(name) for name in ("working_point", "weights", "temperature", "val")
        )
        found = read_working_point(point)
        if found is None or not isinstance(weights, str) or not is_number(temperature):
            raise ValueError("working_point, weights or temperature are missing")
        return KeptPoint(found, weights, float(temperature), val if isinstance(val, dict) else {})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)}: cannot be read as a working point ({error}). Remove it with `finetune "
            f"threshold {printable(run)} --clear`, and choose again."
        ) from None


def write_kept_point(run: Path, kept: KeptPoint) -> Path:
    """Write the working point of a run, in place of any other, and return its path.

    Raises:
        UserError, SaveError: it cannot be written.
    """
    path = run / WORKING_POINT
    value = {
        "format": FORMAT,
        "working_point": kept.point.to_dict(),
        "weights": kept.weights,
        "temperature": kept.temperature,
        "val": kept.val,
    }
    with write_errors_for(path):
        write_atomic(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
    return path


def clear_kept_point(run: Path) -> bool:
    """Remove the working point of a run; return whether there was one.

    Raises:
        UserError, SaveError: it cannot be removed.
    """
    path = run / WORKING_POINT
    with write_errors_for(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def with_kept_point(card: ModelCard, run: Path, folder: Path, which: str) -> ModelCard:
    """Return the card of the checkpoint in ``folder`` with the working point that its run keeps.

    One that was chosen with other weights is left out, with a warning.

    Raises:
        CheckpointError: the file of the working point is damaged.
    """
    kept = read_kept_point(run)
    if kept is None:
        return card
    try:
        kept.point.check(card.classes)
        fits = kept.fits(folder, card)
    except ValueError:
        fits = False
    if fits:
        return replace(card, decision=replace(card.decision, working_point=kept.point))
    name = printable(run / WORKING_POINT)
    if which == "best":
        log.warning(
            "%s was chosen with other weights, and is not applied: the most probable class is taken. Choose "
            "again with `finetune threshold %s`, or remove it with --clear.",
            name,
            printable(run),
        )
    else:
        log.warning("%s belongs to the best checkpoint, and is not applied to '%s'.", name, which)
    return card
