"""Going on from the last checkpoint, or refusing to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.errors import RunDirError
from finetune.recipe.load import load_recipe
from finetune.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    RAW,
    STATE,
    load_weights,
    read_document,
    read_tensors,
)
from finetune.training.position import Position
from finetune.training.run_dir import ENVIRONMENT, RECIPE, RESOLVED, RunDir
from finetune.training.setup import Setup

# What an environment.json must agree on for the bits to be those of one run.
PINNED = ("data_fingerprint", "threads", "device", "precision", "versions")


def restore(saved: Path, setup: Setup) -> tuple[Position, dict[str, Tensor]]:
    """Put the saved weights into the networks of ``setup``; returns position and optimizer state.

    Raises:
        CheckpointError: a file cannot be read or does not fit.
    """
    position = Position.from_dict(read_document(saved / STATE), str(saved / STATE))
    load_weights(setup.evaluated, read_tensors(saved / MODEL), saved / MODEL)
    if setup.ema is not None:
        load_weights(setup.network.module, read_tensors(saved / RAW), saved / RAW)
        setup.ema.n_averaged.fill_(position.ema_updates)
    return position, read_tensors(saved / OPTIMIZER)


def recorded(run: RunDir) -> dict[str, Any]:
    """The environment that the run began in."""
    document = read_document(run.path / ENVIRONMENT)
    return document if isinstance(document, dict) else {}


def refuse_changes(
    run: RunDir, setup: Setup, known: Mapping[str, Any], environment: Mapping[str, Any]
) -> None:
    """Refuse to go on under another recipe, data set or library: the bits would not be those of one run.

    Raises:
        RunDirError: anything differs; each difference is listed.
    """
    before, now = load_recipe(run.path / RESOLVED).model_dump(), setup.recipe.model_dump()
    changed = [f"recipe {line}" for line in _differences(before, now)]
    for name in PINNED:
        if known.get(name) != environment[name]:
            changed.append(f"{name}: {known.get(name)} before, {environment[name]} now")
    name = "start_fingerprint"
    if setup.start and known.get(name) != environment[name]:
        changed.append("model.weights: not the weights that the run began with, which l2_sp holds on to")
    if changed:
        raise RunDirError(
            f"{run.path}: cannot go on, since this has changed:\n  "
            + "\n  ".join(changed)
            + f"\nPut it back (the recipe is in {run.path / RECIPE}), or start over with --overwrite."
        )


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for name in now
            for line in _differences(before.get(name), now[name], f"{path}.{name}" if path else name)
        ]
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (old, new) in pairs for line in _differences(old, new, f"{path}[{i}]")]
    return [] if before == now else [f"{path}: {before!r} before, {now!r} now"]
