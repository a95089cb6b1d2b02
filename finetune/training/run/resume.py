"""Going on from the last checkpoint, or refusing to."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.errors import CheckpointError, DataError, RunDirError
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe, TrainSection
from finetune.training.compute.batch_size import PICTURES_A_STEP
from finetune.training.compute.precision import DTYPES, MEMORY_FORMATS
from finetune.training.own_data import OwnData, own_data, read_record
from finetune.training.phase import save_best
from finetune.training.run.checkpoint import (
    MODEL,
    OPTIMIZER,
    RAW,
    SCORE,
    STATE,
    load_weights,
    open_checkpoint,
    read_document,
    read_tensors,
)
from finetune.training.run.directory import RunDir
from finetune.training.run.files import ENVIRONMENT, RECIPE, RESOLVED
from finetune.training.run.position import Position
from finetune.training.setup import Setup

log = logging.getLogger("finetune")

# What an environment.json must agree on for the bits to be those of one run.
PINNED = ("threads", "device", "precision", "memory_format", "cpu_capability", "versions")
# Of those, what a rule chose when the run began.
SETTLED = ("threads", "precision", "memory_format")
# With these, checkpoints of before and after have not the same tensors.
NEVER = ("classes", "recipe model.backbone", "recipe train.ema")


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
    """The environment that the run began in.

    Raises:
        CheckpointError: its file is gone or is something else.
    """
    document = read_document(run.path / ENVIRONMENT)
    if not isinstance(document, dict) or not _is_settled(document):
        raise CheckpointError(f"{run.path / ENVIRONMENT}: is not the description of a run's environment.")
    return document


def as_begun(train: TrainSection, known: Mapping[str, Any]) -> TrainSection:
    """``train`` with what the run that began in ``known`` settled in place of each ``auto``.

    Another machine's rule may say otherwise, and one thread and two, bf16 and fp32 give different bits.
    """
    settled = {name: known[name] for name in SETTLED if name in known and getattr(train, name) == "auto"}
    return train.model_copy(update=settled)


def batch_size_as_begun(recipe: Recipe, run: RunDir) -> Recipe:
    """``recipe`` with the batches that the run began with in place of ``batch_size: auto``."""
    if recipe.train.batch_size != "auto":
        return recipe
    begun = load_recipe(run.path / RESOLVED).train
    if begun.pictures_a_batch * begun.accumulate != PICTURES_A_STEP * recipe.train.accumulate:
        return recipe  # another step: it will be refused
    settled = {"batch_size": begun.batch_size, "accumulate": begun.accumulate}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=settled)})


def data_as_recorded(run: RunDir, recipe: Recipe, known: Mapping[str, Any]) -> OwnData:
    """The pictures that the run began with, divided as they were then.

    They may lie elsewhere now, or be spelt in another way. Changed ones are in their splits.

    Args:
        known: the environment that the run began in.

    Raises:
        RunDirError: an earlier version began the run and did not record its splits.
        DataError: they are not found, cannot be read, or none is left of a split.
    """
    record = read_record(run.path)
    if record is None:
        raise RunDirError(
            f"{run.path}: an earlier version began this run, which did not record its splits. Start over "
            "with --overwrite."
        )
    begun = load_recipe(run.path / RESOLVED).data
    elsewhere = None if recipe.data.source == begun.source else recipe.data.source
    data = recipe.data.model_copy(update={"source": begun.source})
    classes = known.get("classes", [])
    own = own_data(run.path, data, record, classes, groups=True, take_changed=True, place=elsewhere)
    if set(own.classes) == set(classes):
        for name, split in own.source.splits.items():
            if not len(split):
                raise DataError(f"{own.place}: none of the {name} pictures is there that {run.path} recorded")
    return own


def refuse_changes(
    run: RunDir,
    setup: Setup,
    known: Mapping[str, Any],
    environment: Mapping[str, Any],
    own: OwnData,
    *,
    force: bool,
) -> list[str]:
    """Refuse to go on under another recipe, data set or library: the bits would not be those of one run.

    Args:
        known: the environment that the run began in.
        environment: the present one.
        own: the run's pictures as they are now.
        force: go on in spite of what has changed, where that is possible at all.

    Returns:
        What has changed; empty unless ``force``.

    Raises:
        RunDirError: anything differs; each difference is listed.
    """
    # Where features are kept changes no bit.
    before, now = (
        each.model_dump(exclude={"cache"}) for each in (load_recipe(run.path / RESOLVED), setup.recipe)
    )
    if not own.drift:
        # The same pictures, wherever they lie.
        before["data"]["source"] = now["data"]["source"]
    changed = [f"recipe {line}" for line in _differences(before, now)]
    changed.extend(f"pictures: {line}" for line in own.drift.lines())
    changed.extend(_differences(known.get("classes"), list(own.classes), "classes"))
    for name in PINNED:
        if name in known:
            changed.extend(_differences(known[name], environment[name], name))
    if setup.start and known.get("start_fingerprint") != environment["start_fingerprint"]:
        changed.append("model.weights: not the weights that the run began with, which l2_sp holds on to")
    if not changed:
        return []
    listed = "\n  ".join(changed)
    lost = [name for name in NEVER if any(line.startswith(name) for line in changed)]
    if force and not lost:
        log.warning("%s: going on, although this has changed:\n  %s", run.path, listed)
        return changed
    choice = (
        f"--force does not help where {' and '.join(lost)} changed"
        if lost
        else "--force goes on in spite of it, and gives the bits of neither run"
    )
    raise RunDirError(
        f"{run.path}: cannot go on, since this has changed:\n  {listed}\n"
        f"Put it back (the recipe is in {run.path / RECIPE}), start over with --overwrite, or choose another "
        f"--run-dir; {choice}."
    )


def settle_best(run: RunDir, setup: Setup, position: Position, *, changed: bool) -> None:
    """See to it, after :func:`restore`, that checkpoint ``best`` is the one that ``position`` tells of.

    A kill between the two saves of an epoch leaves an older one, and the weights in ``last``, from which it
    is made good. A newer one is left where nothing has ``changed``: the epoch is about to come again.

    Raises:
        CheckpointError: it is missing, harmed or another one.
    """
    best = position.best
    if best is None:
        return
    fresh = position.epoch == best.epoch and position.epoch_step == 0
    try:
        found = open_checkpoint(run.checkpoints, "best")
        score = read_document(found / SCORE) if found is not None else None
        fault = f"{run.checkpoints / 'best'}: is missing or of another epoch than {best.epoch}"
    except CheckpointError as error:
        score, fault = None, str(error)
    if score == asdict(best):
        return
    if fresh:
        save_best(setup, run, position)
        return
    newer = isinstance(score, dict) and isinstance(score.get("epoch"), int) and score["epoch"] > best.epoch
    if not newer or changed:
        raise CheckpointError(f"{fault}. The best weights are lost: start over with --overwrite.")


def _is_settled(document: Mapping[str, Any]) -> bool:
    threads, precision = document.get("threads"), document.get("precision", "fp32")
    layout = document.get("memory_format", "contiguous")
    return type(threads) is int and threads >= 1 and precision in DTYPES and layout in MEMORY_FORMATS


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict) and (before.keys() <= now.keys()):
        return [
            line
            for name in now
            for line in _differences(before.get(name), now[name], f"{path}.{name}" if path else name)
        ]
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (old, new) in pairs for line in _differences(old, new, f"{path}[{i}]")]
    return [] if before == now else [f"{path}: {before!r} before, {now!r} now"]
