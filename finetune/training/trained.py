"""A trained network on images: its own data as it was split for it, and the numbers there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.manifest import undisturbed
from finetune.checkpoint.storage import (
    CARD,
    MODEL,
    checkpoint_places,
    find_checkpoint,
    load_weights,
    read_document,
    read_tensors,
    warn_of_fallback,
)
from finetune.data.batches.batch import Batch
from finetune.data.batches.options import default_workers
from finetune.data.dataset import Split
from finetune.errors import RunDirError, printable
from finetune.evaluation.evaluate import Evaluation, evaluate_split
from finetune.features.cut import inference_form
from finetune.model.build import rebuild
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.training.compute.precision import InferencePrecision, inference, place
from finetune.training.run.files import CHECKPOINTS, RESOLVED


@dataclass(frozen=True)
class Trained:
    """A trained network as ``eval``, ``predict`` and ``export`` take it: eval mode, evaluation weights."""

    module: nn.Module
    card: ModelCard
    run: Path
    checkpoint: str
    recipe: Recipe


def load_trained(
    run: Path, which: Literal["best", "last"] = "best", device: torch.device | None = None
) -> Trained:
    """Rebuild the network of a run and load a checkpoint into it. A training may be going on there.

    With a ``device`` it is placed there to be run; without, it is on the CPU in torch's plain memory format,
    as a file wants it.

    Raises:
        RunDirError: ``run`` is no run directory, or has no such checkpoint yet.
        CheckpointError: the checkpoint is torn, altered or does not fit its own description.
    """
    if not (run / RESOLVED).is_file():
        raise RunDirError(
            f"{printable(run)}: not a run directory. Give the folder that `finetune train` printed."
        )
    checkpoints = run / CHECKPOINTS

    def read() -> tuple[Path, str | None, ModelCard, dict[str, Tensor], Recipe]:
        folder, problem = find_checkpoint(checkpoints, which)
        if folder is None:
            raise RunDirError(
                f"{printable(run)}: has no checkpoint '{which}' yet. Finish the run with: finetune train "
                f"{printable(run)}/recipe.yaml "
                f"--run-dir {printable(run)} --resume"
            )
        card = ModelCard.from_dict(read_document(folder / CARD), str(folder / CARD))
        return folder, problem, card, read_tensors(folder / MODEL), load_recipe(run / RESOLVED)

    folder, problem, card, weights, recipe = undisturbed(checkpoint_places(checkpoints, which), read)
    warn_of_fallback(folder, problem)
    module = rebuild(card.architecture, len(card.classes))
    load_weights(module, weights, folder / MODEL)
    if device is not None:
        place(module, device)
    return Trained(module.eval(), card, run, which, recipe)


def evaluate_trained(
    trained: Trained,
    split_name: str,
    images: Split,
    device: torch.device,
    batch_size: int | None = None,
    precision: InferencePrecision = "fp32",
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Evaluation:
    """Evaluate a trained network, which must be on ``device``, as its recipe reads images.

    It runs in inference form (:mod:`finetune.features.cut`). ``images`` must have their targets in the
    order of its classes, ``batch_size`` None is the recipe's; raises as
    :func:`finetune.evaluation.evaluate.evaluate_split`.
    """
    section = trained.recipe.data
    return evaluate_split(
        inference_form(trained.module),
        images,
        split_name,
        trained.card.classes,
        trained.card.preprocessing,
        device=device,
        batch_size=batch_size or trained.recipe.train.images_a_batch,
        workers=default_workers() if section.workers == "auto" else section.workers,
        on_bad_image=section.on_bad_image,
        precision=precision,
        autocast=inference(device, precision),
        watch=watch,
    )
