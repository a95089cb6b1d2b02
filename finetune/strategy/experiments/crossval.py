"""Cross-validation: trains a recipe with each fold held out, and evaluates the held-out folds together."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.checkpoint.card import ModelCard
from finetune.data.dataset import Split
from finetune.data.images import JoinedImages
from finetune.errors import DataError, UserError, printable
from finetune.evaluation.evaluate import Collected, Evaluation
from finetune.recipe.schema import FoldSection, Recipe
from finetune.strategy.experiments.compare import WatchOf, unwatched
from finetune.strategy.experiments.repeat import ProgressOf, RunOptions, train_all
from finetune.strategy.experiments.spread import Spread, of_folds
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.fit import Result
from finetune.training.trained import evaluate_trained, load_trained

log = logging.getLogger("finetune")

OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class CrossValidation:
    """The results of a cross-validation.

    Attributes:
        folds: the evaluation of each fold by the network that was not trained on it.
        spread: of the top-1 of the folds, with the corrected interval of
            :func:`finetune.strategy.experiments.spread.of_folds`.
        pooled: the evaluation of all images, each by the network that was not trained on it. The interval of
            its top-1, by groups where images have groups, holds for these networks; ``spread`` includes that
            other training images would give other networks.
        card: of the network of the first fold.
    """

    folds: tuple[Evaluation, ...]
    spread: Spread
    pooled: Evaluation
    card: ModelCard

    def predictions(self) -> Iterator[list[Any]]:
        """Yield a table, header first: the fold, then the columns of :meth:`Evaluation.predictions`."""
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


def train_folds(
    recipe: Recipe, place: Path, of: int, options: RunOptions, progress_of: ProgressOf
) -> Iterator[Result]:
    """Train ``recipe`` with each of ``of`` folds held out as test, in ``place/fold-0`` and so on.

    Val, which chooses the checkpoint, is held out from the other folds. With ``options.resume``, finished
    folds do not change, an interrupted one is resumed, and missing ones are trained.

    Raises:
        UserError: the recipe sets ``data.fold``.
        RunDirError: ``place`` is itself a run, or one of the directories is taken.
        FinetuneError: as :func:`finetune.training.fit.fit`.
    """
    if recipe.data.fold is not None:
        raise UserError("`finetune cv` sets data.fold: remove it from the recipe")
    recipes = {}
    for number, own in enumerate(fold_places(place, of)):
        data = recipe.data.model_copy(update={"fold": FoldSection(number=number, of=of)})
        recipes[own.name] = recipe.model_copy(update={"data": data})
    return train_all(recipes, place, options, progress_of)


def fold_places(place: Path, of: int) -> list[Path]:
    """Return the run directories of the folds."""
    return [place / f"fold-{number}" for number in range(of)]


def evaluate_folds(
    places: Sequence[Path],
    device: torch.device,
    *,
    checkpoint: Literal["best", "last"] = "best",
    watch_of: WatchOf = unwatched,
) -> CrossValidation:
    """Evaluate the run of each fold on its held-out images.

    Raises:
        RunDirError, CheckpointError: a run is missing or damaged.
    """
    folds: list[Evaluation] = []
    cards: list[ModelCard] = []
    for place in places:
        trained = load_trained(place, checkpoint, device)
        cards.append(trained.card)
        held = images_to_evaluate(trained, "test")
        for warning in held.warnings:
            log.warning("%s", warning)
        watch = watch_of(trained, len(held.images))
        folds.append(evaluate_trained(trained, held.images, OUT_OF_FOLD, watch=watch))
    _refuse_overlap(folds)
    spread = of_folds([fold.metrics.top1 for fold in folds])
    return CrossValidation(tuple(folds), spread, _pooled(folds), cards[0])


def _refuse_overlap(folds: Sequence[Evaluation]) -> None:
    """Check that the folds were made from the same images: each image must be held out once.

    Raises:
        DataError: an image is held out in two folds.
    """
    owner: dict[str, int] = {}
    for number, fold in enumerate(folds):
        for index in range(len(fold.images)):
            name = fold.images.name(index)
            if owner.setdefault(name, number) != number:
                raise DataError(
                    f"{printable(name)} is held out in folds {owner[name]} and {number}: the images "
                    "changed between these folds. Train all folds again with --overwrite."
                )


def _pooled(folds: Sequence[Evaluation]) -> Evaluation:
    starts = np.cumsum([0, *(len(fold.images) for fold in folds)])[:-1]
    found = [fold.collected for fold in folds]
    collected = Collected(
        np.concatenate([each.calibrated for each in found]),
        np.concatenate([each.targets for each in found]),
        np.concatenate([each.indices + start for each, start in zip(found, starts, strict=True)]),
        tuple(error for each in found for error in each.bad),
        calibration=None,
        groups=_joined([each.groups for each in found]),
    )
    images = Split(
        JoinedImages([fold.images.images for fold in folds]),
        np.concatenate([fold.images.targets for fold in folds]),
        _joined([fold.images.groups for fold in folds]),
    )
    return Evaluation(collected.metrics(folds[0].metrics.classes), collected, images, OUT_OF_FOLD)


def _joined(groups: Sequence[NDArray[np.int64] | None]) -> NDArray[np.int64] | None:
    """The groups of all folds; None if those of a fold are not known."""
    known = [each for each in groups if each is not None]
    return np.concatenate(known) if len(known) == len(groups) else None
