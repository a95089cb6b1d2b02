"""Going on from the last checkpoint, or refusing to."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from finetune.checkpoint.storage import (
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
from finetune.errors import CheckpointError, DataError, FinishedRunError, RunDirError, printable
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe, TrainSection
from finetune.training.compute.batch_size import IMAGES_A_STEP
from finetune.training.compute.precision import DTYPES, MEMORY_FORMATS
from finetune.training.phase import save_best
from finetune.training.run.directory import RunDir
from finetune.training.run.files import ENVIRONMENT, RECIPE, RESOLVED
from finetune.training.run.own_data import OwnData, own_data, read_record
from finetune.training.run.position import Position
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")

# What an environment.json must agree on for the bits to be those of one run.
PINNED = ("threads", "device", "precision", "memory_format", "cpu_capability", "versions")
# Of those, what a rule chose when the run began.
SETTLED = ("threads", "precision", "memory_format")
# With these, checkpoints of before and after have not the same tensors.
NEVER = ("classes", "recipe model.backbone", "recipe train.ema")


def read_position(saved: Path) -> Position:
    """Where the run stood when ``saved`` was.

    Raises:
        CheckpointError: its file cannot be read, or is none.
    """
    return Position.from_dict(read_document(saved / STATE), str(saved / STATE))


def restore(saved: Path, setup: Setup, position: Position) -> dict[str, Tensor]:
    """Put the saved weights into the networks of ``setup``; returns the optimizer's state.

    Raises:
        CheckpointError: a file cannot be read or does not fit.
    """
    load_weights(setup.evaluated, read_tensors(saved / MODEL), saved / MODEL)
    if setup.ema is not None:
        load_weights(setup.network.module, read_tensors(saved / RAW), saved / RAW)
        setup.ema.n_averaged.fill_(position.ema_updates)
    return read_tensors(saved / OPTIMIZER)


def recorded(run: RunDir) -> dict[str, Any]:
    """The environment that the run began in.

    Raises:
        CheckpointError: its file is gone or is something else.
    """
    document = read_document(run.path / ENVIRONMENT)
    if not isinstance(document, dict) or not _is_settled(document):
        raise CheckpointError(
            f"{printable(run.path / ENVIRONMENT)}: is not the description of a run's environment."
        )
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
    if begun.images_a_batch * begun.accumulate != IMAGES_A_STEP * recipe.train.accumulate:
        return recipe  # another step: it will be refused
    settled = {"batch_size": begun.batch_size, "accumulate": begun.accumulate}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=settled)})


def data_as_recorded(run: RunDir, recipe: Recipe, known: Mapping[str, Any]) -> OwnData:
    """The images that the run began with, divided as they were then.

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
            f"{printable(run.path)}: an earlier version began this run, which did not record its splits. "
            "Start over "
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
                raise DataError(
                    f"{printable(own.place)}: none of the {name} images is there that "
                    f"{printable(run.path)} recorded"
                )
    return own


def begun_with(run: RunDir, recipe: Recipe, own: OwnData) -> Recipe:
    """The recipe that the run began with. The same images are the same source, wherever they lie now."""
    begun = load_recipe(run.path / RESOLVED)
    if own.drift:
        return begun
    return begun.model_copy(update={"data": begun.data.model_copy(update={"source": recipe.data.source})})


@dataclass(frozen=True)
class Changes:
    """What differs from what a run began with, a line each: in its recipe, its data, and the machine."""

    recipe: list[str]
    data: list[str]
    machine: list[str]

    @property
    def all(self) -> list[str]:
        return [*self.recipe, *self.data, *self.machine]


def find_changes(
    begun: Recipe, setup: Setup, known: Mapping[str, Any], environment: Mapping[str, Any], own: OwnData
) -> Changes:
    """What has changed since the run began, of all that decides its bits.

    Args:
        begun: the recipe that the run began with.
        known: the environment that it began in.
        environment: the present one.
        own: the run's images as they are now.
    """
    recipe = [f"recipe {line}" for line in differences(begun, setup.recipe)]
    changed = [f"images: {line}" for line in own.drift.lines()]
    changed.extend(_differences(known.get("classes"), list(own.classes), "classes"))
    machine: list[str] = []
    for name in PINNED:
        if name in known:
            machine.extend(_differences(known[name], environment[name], name))
    if setup.start and known.get("start_fingerprint") != environment["start_fingerprint"]:
        machine.append("model.weights: not the weights that the run began with, which l2_sp holds on to")
    return Changes(recipe, changed, machine)


def refuse_changes(run: RunDir, changed: list[str], *, force: bool, extend: bool = False) -> None:
    """Refuse to go on under another recipe, data set or library: the bits would not be those of one run.

    Args:
        force: go on in spite of what has ``changed``, where that is possible at all.
        extend: the user wants the run longer, which is not finished.

    Raises:
        RunDirError: anything has changed; it is listed.
    """
    if not changed:
        return
    listed = "\n  ".join(changed)
    lost = [name for name in NEVER if any(line.startswith(name) for line in changed)]
    if force and not lost:
        log.warning("%s: going on, although this has changed:\n  %s", run.path, listed)
        return
    choice = (
        f"--force does not help where {' and '.join(lost)} changed"
        if lost
        else "--force goes on in spite of it, and gives the bits of neither run"
    )
    first_finish = " --extend takes a run that is finished: let this one come to its end first."
    raise RunDirError(
        f"{printable(run.path)}: cannot go on, since this has changed:\n  {listed}\n"
        f"Put it back (the recipe is in {printable(run.path / RECIPE)}), start over with --overwrite, or "
        "choose another "
        f"--run-dir; {choice}.{first_finish if extend else ''}"
    )


def refuse_finished(run: RunDir, setup: Setup, changes: Changes, *, longer: bool, extend: bool) -> NoReturn:
    """A finished run stays what it is: refuse to take another training for it.

    Args:
        longer: nothing but the length of the training has changed.
        extend: it was to be trained longer, and more than that has changed.

    Raises:
        FinishedRunError: always.
    """
    listed = "\n  ".join(changes.all)
    another_model = any(line.startswith("recipe model.") for line in changes.recipe)
    if longer:
        place = printable(run.path)
        remedy = f"To train it longer, give `finetune train` this recipe, --run-dir {place} --resume --extend"
    elif another_model:
        remedy = "Start over with --overwrite, or choose another --run-dir"
    else:
        remedy = (
            f"To train on from its weights, take another --run-dir and model.weights: {printable(run.path)}"
        )
    if extend:
        remedy = f"--extend takes more epochs in the last phase, or phases after it. {remedy}"
        if not another_model:
            remedy += "; --force extends it in spite of what has changed"
    head = setup.recipe.model.head
    raise FinishedRunError(
        f"{printable(run.path)}: this run is finished, and this has changed since:\n  {listed}\n"
        f"Nothing was done. {remedy}",
        longer=longer,
        weights=not another_model,
        reuse=head.type == "linear" and not head.hidden and head.at is None,
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
        fault = f"{printable(run.checkpoints / 'best')}: is missing or of another epoch than {best.epoch}"
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


def differences(before: Recipe, now: Recipe) -> list[str]:
    """The keys that differ, with both values. Where features are kept changes no bit."""
    return _differences(before.model_dump(exclude={"cache"}), now.model_dump(exclude={"cache"}))


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
