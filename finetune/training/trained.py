"""A trained network on pictures: its own data as it was split for it, and the numbers there."""

from collections.abc import Callable, Iterable

import torch

from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import default_workers
from finetune.data.sources.dataset import Split
from finetune.evaluation.evaluate import Evaluation, evaluate_split
from finetune.features.split import inference_form
from finetune.training.compute.precision import InferencePrecision, inference
from finetune.training.run.checkpoint import Trained


def evaluate_trained(
    trained: Trained,
    split_name: str,
    pictures: Split,
    device: torch.device,
    batch_size: int | None = None,
    precision: InferencePrecision = "fp32",
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Evaluation:
    """Evaluate a trained network, which must be on ``device``, as its recipe reads pictures.

    It runs in inference form (:mod:`finetune.features.split`). ``pictures`` must have their targets in the
    order of its classes, ``batch_size`` None is the recipe's; raises as
    :func:`finetune.evaluation.evaluate.evaluate_split`.
    """
    section = trained.recipe.data
    return evaluate_split(
        inference_form(trained.module),
        pictures,
        split_name,
        trained.card.classes,
        trained.card.preprocessing,
        device=device,
        batch_size=batch_size or trained.recipe.train.pictures_a_batch,
        workers=default_workers() if section.workers == "auto" else section.workers,
        on_bad_image=section.on_bad_image,
        precision=precision,
        autocast=inference(device, precision),
        watch=watch,
    )
