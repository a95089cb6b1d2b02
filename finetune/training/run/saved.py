"""A run as its directory records it: what a resume reads before it continues."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

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
from finetune.errors import CheckpointError, DataError, RunDirError, printable
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe, TrainSection
from finetune.training.compute.batch_size import IMAGES_A_STEP
from finetune.training.compute.precision import DTYPES, MEMORY_FORMATS
from finetune.training.run.directory import RunDir
from finetune.training.run.files import ENVIRONMENT, RESOLVED
from finetune.training.run.own_data import OwnData, RecordedData
from finetune.training.run.position import Position
from finetune.training.setup.prepare import Setup

# The keys of `train` that may be `auto`, and that the environment of a run records.
RECORDED_CHOICES = ("threads", "precision", "memory_format")


@dataclass(frozen=True)
class SavedRun:
    """A run that has a checkpoint.

    Attributes:
        checkpoint: the folder of the last checkpoint that is intact.
        environment: ``environment.json``: the machine, the versions and the choices that the run began with.
    """

    run: RunDir
    checkpoint: Path
    environment: Mapping[str, Any]

    @classmethod
    def open(cls, run: RunDir) -> Self | None:
        """Open the run in a directory; None if it has no checkpoint yet.

        Raises:
            CheckpointError: ``environment.json`` is missing or damaged.
        """
        checkpoint = open_checkpoint(run.checkpoints, "last")
        return None if checkpoint is None else cls(run, checkpoint, read_environment(run.path))

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the run began with, every default filled in."""
        return load_recipe(self.run.path / RESOLVED)

    def fill_in_batch_size(self, recipe: Recipe) -> Recipe:
        """Replace ``batch_size: auto`` by the batches that the run began with."""
        train, begun = recipe.train, self.recipe.train
        if train.batch_size != "auto":
            return recipe
        if begun.images_per_batch * begun.accumulate != IMAGES_A_STEP * train.accumulate:
            return recipe  # another recipe, which is refused later
        sizes = {"batch_size": begun.batch_size, "accumulate": begun.accumulate}
        return recipe.model_copy(update={"train": train.model_copy(update=sizes)})

    def find_images(self, recipe: Recipe) -> OwnData:
        """Find the images of the run and split them as recorded. Changed images stay in their splits.

        Raises:
            RunDirError: an earlier version began the run and did not record its splits.
            DataError: the images are not found or cannot be read, or a split has none left.
        """
        begun, classes = self.recipe.data, self.environment.get("classes", [])
        data = recipe.data.model_copy(update={"source": begun.source})
        recorded = RecordedData.read(self.run.path, data, classes)
        if recorded is None:
            raise RunDirError(
                f"{printable(self.run.path)}: an earlier version began this run and did not record its "
                "splits. Start over with --overwrite."
            )
        elsewhere = None if recipe.data.source == begun.source else recipe.data.source
        own = recorded.find(elsewhere, groups=True, take_changed=True)
        if set(own.classes) == set(classes):
            for name, split in own.source.splits.items():
                if not len(split):
                    raise DataError(
                        f"{printable(own.place)}: holds none of the {name} images that "
                        f"{printable(self.run.path)} recorded. Give their folder with --set data.source=..."
                    )
        return own

    def recipe_on(self, recipe: Recipe, own: OwnData) -> Recipe:
        """The recipe that the run began with, with the ``data.source`` of ``recipe`` if the images match."""
        if own.changes:
            return self.recipe
        data = self.recipe.data.model_copy(update={"source": recipe.data.source})
        return self.recipe.model_copy(update={"data": data})

    def read_position(self) -> Position:
        """Read the position of the last checkpoint.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return Position.from_dict(read_document(self.checkpoint / STATE), str(self.checkpoint / STATE))

    def load_into(self, setup: Setup, position: Position) -> dict[str, Tensor]:
        """Load the saved weights into the networks of ``setup``; return the optimizer's state.

        Raises:
            CheckpointError: a file is damaged or does not fit the network.
        """
        folder = self.checkpoint
        load_weights(setup.evaluated, read_tensors(folder / MODEL), folder / MODEL)
        if setup.ema is not None:
            load_weights(setup.network.module, read_tensors(folder / RAW), folder / RAW)
            setup.ema.n_averaged.fill_(position.ema_updates)
        return read_tensors(folder / OPTIMIZER)


def read_environment(run: Path) -> dict[str, Any]:
    """Read ``environment.json`` of a run.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    document = read_document(run / ENVIRONMENT)
    known = document if isinstance(document, dict) else {}
    threads, layout = known.get("threads"), known.get("memory_format", "contiguous")
    is_possible = type(threads) is int and threads >= 1 and layout in MEMORY_FORMATS
    if not is_possible or known.get("precision", "fp32") not in DTYPES:
        raise CheckpointError(
            f"{printable(run / ENVIRONMENT)}: does not describe the environment of a run. Start over with "
            "--overwrite."
        )
    return known


def fill_in_choices(train: TrainSection, environment: Mapping[str, Any]) -> TrainSection:
    """``train`` with the recorded thread count, precision and memory format in place of ``auto``.

    On another machine the rules could choose other values, and with them other bits.
    """
    recorded = {
        name: environment[name]
        for name in RECORDED_CHOICES
        if name in environment and getattr(train, name) == "auto"
    }
    return train.model_copy(update=recorded)


def best_is_saved(run: RunDir, position: Position, *, changed: bool) -> bool:
    """Whether checkpoint ``best`` is the one that ``position`` names; False: save the present weights.

    A kill between the two saves of an epoch leaves an older ``best``; the weights are still in ``last``. It
    can also leave a newer ``best``, which is right if nothing has ``changed``: the same epoch comes again.

    Raises:
        CheckpointError: ``best`` is missing, damaged or of another epoch, and cannot be restored.
    """
    best = position.best
    if best is None:
        return True
    try:
        found = open_checkpoint(run.checkpoints, "best")
        score = read_document(found / SCORE) if found is not None else None
        fault = f"{printable(run.checkpoints / 'best')}: is missing or not of epoch {best.epoch}"
    except CheckpointError as error:
        score, fault = None, str(error)
    if score == best.to_dict():
        return True
    if position.epoch == best.epoch and position.epoch_step == 0:
        return False
    newer = isinstance(score, dict) and isinstance(score.get("epoch"), int) and score["epoch"] > best.epoch
    if not newer or changed:
        raise CheckpointError(f"{fault}. The best weights are lost: start over with --overwrite.")
    return True
