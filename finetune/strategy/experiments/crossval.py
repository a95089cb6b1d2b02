"""Cross-validation: a recipe trained on all folds but one, for each; what the held-out folds say together."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.data.dataset import Split
from finetune.data.images import JoinedImages
from finetune.errors import DataError, UserError, printable
from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.recipe.schema import FoldSection, Recipe
from finetune.strategy.experiments.repeat import Options, Telling, refuse_run, refuse_taken, train_in_place
from finetune.strategy.experiments.spread import Spread, of_folds
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.fit import Result
from finetune.training.trained import evaluate_trained, load_trained

log = logging.getLogger("finetune")

OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class CrossValidation:
    """What the folds came to.

    Attributes:
        folds: the evaluation of each fold by the network that did not see it.
        spread: of their top-1; its interval is the corrected one of
            :func:`finetune.strategy.experiments.spread.of_folds`.
        pooled: all images, each as predicted by the network that did not see it. The Wilson interval of its
            top-1 tells how sure the number is as one for these networks on such images; that other training
            images would give other networks is what ``spread`` adds.
    """

    folds: tuple[Evaluation, ...]
    spread: Spread
    pooled: Evaluation

    def predictions(self) -> Iterator[list[Any]]:
        """A table, header first: fold, then as :meth:`Evaluation.predictions`."""
        for number, fold in enumerate(self.folds):
            header, *rows = fold.predictions()
            if number == 0:
                yield ["fold", *header]
            for row in rows:
                yield [number, *row]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the pooled metrics, those of each fold, and their spread."""
        folds = [
            {"fold": number, **{key: getattr(fold.metrics, key) for key in ("top1", "n", "loss")}}
            for number, fold in enumerate(self.folds)
        ]
        return self.pooled.to_dict() | {"folds": folds, "top1_spread": self.spread.to_dict()}


def train_folds(recipe: Recipe, place: Path, of: int, options: Options, telling: Telling) -> Iterator[Result]:
    """Train ``recipe`` with each of ``of`` folds held out as test, in ``place/fold-0`` and so on.

    Val, which chooses the checkpoint, is carved out of the other folds: the held one chooses nothing. Under
    ``options.resume`` finished folds are left, an interrupted one is continued, missing ones are done.

    Raises:
        UserError: the recipe names a fold itself.
        RunDirError: ``place`` is a run itself, or one of the directories is taken.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    if recipe.data.fold is not None:
        raise UserError("data.fold is what `finetune cv` fills in: leave it out of the recipe")
    refuse_run(place)
    places = fold_places(place, of)
    if not (options.resume or options.overwrite):
        refuse_taken(places)
    for number, own in enumerate(places):
        data = recipe.data.model_copy(update={"fold": FoldSection(number=number, of=of)})
        yield train_in_place(recipe.model_copy(update={"data": data}), own, options, telling(own))


def fold_places(place: Path, of: int) -> list[Path]:
    """The run directories of the folds."""
    return [place / f"fold-{number}" for number in range(of)]


def judge_folds(places: Sequence[Path], device: torch.device) -> CrossValidation:
    """Evaluate the run of each fold on the images that it did not see.

    Raises:
        RunDirError, CheckpointError: a run is not there, or harmed.
    """
    folds = []
    for place in places:
        trained = load_trained(place, "best", device)
        held = images_to_evaluate(trained, "test")
        for warning in held.warnings:
            log.warning("%s", warning)
        folds.append(evaluate_trained(trained, held.images, OUT_OF_FOLD))
    _refuse_overlap(folds)
    return CrossValidation(tuple(folds), of_folds([fold.metrics.top1 for fold in folds]), _pooled(folds))


def _refuse_overlap(folds: Sequence[Evaluation]) -> None:
    """Each image is held out once: folds that were made of other lists of images do not belong together.

    Raises:
        DataError: an image is in two of them.
    """
    owner: dict[str, int] = {}
    for number, fold in enumerate(folds):
        for index in range(len(fold.images)):
            name = fold.images.name(index)
            if owner.setdefault(name, number) != number:
                raise DataError(
                    f"{printable(name)} is held out in folds {owner[name]} and {number}: images changed "
                    "between these folds. Train them all again with --overwrite."
                )


def _pooled(folds: Sequence[Evaluation]) -> Evaluation:
    starts = np.cumsum([0, *(len(fold.images) for fold in folds)])[:-1]
    found = [fold.collected for fold in folds]
    collected = Collected(
        np.concatenate([each.logits for each in found]),
        np.concatenate([each.targets for each in found]),
        np.concatenate([each.indices + start for each, start in zip(found, starts, strict=True)]),
        tuple(error for each in found for error in each.bad),
    )
    images = Split(
        JoinedImages([fold.images.images for fold in folds]),
        np.concatenate([fold.images.targets for fold in folds]),
    )
    return Evaluation.of(collected, folds[0].metrics.classes, images, OUT_OF_FOLD)
