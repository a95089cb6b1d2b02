"""The trained network of a run: load it and evaluate it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.manifest import read_unchanged
from finetune.checkpoint.storage import (
    CARD,
    MODEL,
    NOVELTY,
    checkpoint_folders,
    find_checkpoint,
    load_weights,
    read_document,
    read_tensors,
    warn_of_damage,
)
from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions, default_workers
from finetune.data.dataset import Split
from finetune.errors import RunDirError, printable
from finetune.evaluation.evaluate import Collected, Evaluation, collect_logits
from finetune.features.cut import inference_form
from finetune.model.build import rebuild
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.training.compute.precision import InferencePrecision, inference, place
from finetune.training.novelty_file import read_reference
from finetune.training.run.files import CHECKPOINTS, RESOLVED
from finetune.training.run.kept_point import with_kept_point


@dataclass(frozen=True)
class Trained:
    """The network of a checkpoint, in eval mode, with the weights to evaluate.

    Attributes:
        run: the run directory.
        folder: the folder of the checkpoint.
        checkpoint: ``best`` or ``last``.
        recipe: the resolved recipe of the run.
        reference: (M, D) features of training images, with which others are compared; None: the checkpoint
            has none, or an earlier version wrote it.
    """

    module: nn.Module
    card: ModelCard
    run: Path
    folder: Path
    checkpoint: str
    recipe: Recipe
    reference: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return next(self.module.parameters()).device


def load_trained(
    run: Path, which: Literal["best", "last"] = "best", device: torch.device | None = None
) -> Trained:
    """Rebuild the network of a run and load a checkpoint into it. The run may still be training.

    The card has the working point that the run keeps, if it was chosen with these weights.

    Args:
        which: the checkpoint.
        device: to run on; None: the CPU, in the contiguous memory format, which exports need.

    Raises:
        RunDirError: ``run`` is not a run directory, or has no such checkpoint yet.
        CheckpointError: the checkpoint is damaged, was altered or does not fit its card; or the file of the
            working point is damaged.
    """
    if not (run / RESOLVED).is_file():
        raise RunDirError(
            f"{printable(run)}: not a run directory. Give the folder that `finetune train` printed."
        )
    checkpoints = run / CHECKPOINTS

    def read() -> tuple[Path, str | None, ModelCard, dict[str, Tensor], Tensor | None, Recipe]:
        folder, problem = find_checkpoint(checkpoints, which)
        if folder is None:
            raise RunDirError(
                f"{printable(run)}: has no checkpoint '{which}' yet. Finish the run with: finetune train "
                f"{printable(run)}/recipe.yaml --run-dir {printable(run)} --resume"
            )
        described = ModelCard.from_dict(read_document(folder / CARD), str(folder / CARD))
        card = with_kept_point(described, run, folder, which)
        reference = read_reference(folder / NOVELTY, card)
        return folder, problem, card, read_tensors(folder / MODEL), reference, load_recipe(run / RESOLVED)

    folder, problem, card, weights, reference, recipe = read_unchanged(
        checkpoint_folders(checkpoints, which), read
    )
    warn_of_damage(folder, problem)
    module = rebuild(card.architecture, len(card.classes))
    load_weights(module, weights, folder / MODEL)
    if device is not None:
        place(module, device)
    return Trained(module.eval(), card, run, folder, which, recipe, reference)


def evaluate_trained(
    trained: Trained,
    images: Split,
    split_name: str,
    *,
    batch_size: int | None = None,
    precision: InferencePrecision = "fp32",
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Evaluation:
    """Evaluate a trained network on ``images``, on its device.

    Args:
        images: with targets in the order of the network's classes.
        split_name: the name of the images in the result.
        batch_size: None: the recipe's.
        watch: wraps the batches, for example to show progress.

    Raises:
        BadImageError: an image cannot be read and the recipe has ``on_bad_image: error``.
        DataError: there are no readable images.
        FinetuneError: the network computes logits that are not finite.
    """
    collected = collect_trained(trained, images, batch_size=batch_size, precision=precision, watch=watch)
    return Evaluation(collected.metrics(trained.card.classes), collected, images, split_name, precision)


def collect_trained(
    trained: Trained,
    images: Split,
    *,
    batch_size: int | None = None,
    precision: InferencePrecision = "fp32",
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Collected:
    """Compute the logits that :func:`evaluate_trained` evaluates; arguments and errors as there."""
    section = trained.recipe.data
    options = ReadOptions(
        batch_size or trained.recipe.train.images_per_batch,
        default_workers() if section.workers == "auto" else section.workers,
        section.on_bad_image,
    )
    batches = eval_batches(images, trained.card.preprocessing, options)
    module, autocast = inference_form(trained.module), inference(trained.device, precision)
    found = collect_logits(module, watch(batches), trained.device, autocast, images.groups)
    return replace(found, calibration=trained.card.decision.calibration)
