"""Collect everything that a report of one run says: the table of contents."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from finetune.checkpoint.storage import read_document
from finetune.data.dataset import Split
from finetune.errors import FinetuneError
from finetune.evaluation.evaluate import Evaluation
from finetune.evaluation.working_point import CostResult, ThresholdResult
from finetune.features.progress import OnProgress, OnStage, no_progress
from finetune.recipe.load import dump_recipe
from finetune.reporting import limits
from finetune.reporting.cases import Predictions
from finetune.reporting.finished import is_finished
from finetune.reporting.run.images import RunImages, images_of_run
from finetune.reporting.run.labels import (
    Doubts,
    ExaminedImages,
    Nearest,
    examine_images,
    find_doubts,
    find_nearest,
)
from finetune.reporting.run.layers import Layers, compare_layers
from finetune.reporting.trust import Trust, measure_trust
from finetune.reporting.watch import watching
from finetune.strategy.doctor.examine import check_digests, check_images
from finetune.strategy.doctor.findings import Finding
from finetune.training.compute.precision import pick_device
from finetune.training.curves import History
from finetune.training.run.files import ENVIRONMENT, WEIGHTS
from finetune.training.trained import Trained, evaluate_trained, load_trained
from finetune.training.working_points import measure_kept


@dataclass(frozen=True)
class Findings:
    """The doctor's findings on the images of a run.

    Attributes:
        found: the most harmful first.
        is_whole: whether every image was read; else only recorded digests and counts were compared.
        failure: why the doctor could not look; else None.
    """

    found: tuple[Finding, ...]
    is_whole: bool
    failure: str | None = None


@dataclass(frozen=True)
class RunFacts:
    """Everything that a report of one run says.

    Attributes:
        evaluation: as `finetune eval` computes it.
        mistakes, uncertain: rows of ``predictions`` that get a card.
        examined: the images whose features were computed; None if they could not be.
        working_point: what the one that the run keeps does; None if it keeps none.
        near: the training images nearest to these rows: places among those examined, and similarities.
        history: what ``metrics.jsonl`` says.
        environment, weights: the run's documents; empty if it has none.
        resolved: the recipe with every default filled in.
        is_finished: whether the training came to its end, as far as its last checkpoint tells.
    """

    trained: Trained
    images: RunImages
    evaluation: Evaluation
    predictions: Predictions
    trust: Trust
    working_point: ThresholdResult | CostResult | None
    mistakes: tuple[int, ...]
    uncertain: tuple[int, ...]
    examined: ExaminedImages | None
    near: Mapping[int, Nearest]
    doubts: Doubts
    findings: Findings
    layers: Layers
    history: History
    environment: Mapping[str, Any]
    weights: Mapping[str, Any]
    resolved: str
    is_finished: bool

    @property
    def cards(self) -> tuple[int, ...]:
        """The rows that get a card, each once."""
        return tuple(dict.fromkeys((*self.mistakes, *self.uncertain)))

    @property
    def split(self) -> Split:
        """The images that the report is on."""
        return self.evaluation.images


def collect(
    run: Path,
    split: str | None = None,
    limit: int = 200,
    *,
    checkpoint: Literal["best", "last"] = "best",
    device: str | None = None,
    progress: OnStage = no_progress,
) -> RunFacts:
    """Collect the facts of a run. Nothing is written.

    Args:
        split: train, val or test; None: test, or val where there is no test split.
        limit: the images that the page may show.
        progress: called with a unit ("batch", "image"), the units done, and their total.

    Raises:
        RunDirError, CheckpointError: there is no run, or no intact checkpoint.
        DataError: the images are not found or cannot be read, or there is no such split.
    """
    trained = load_trained(run, checkpoint, pick_device(device))
    images = images_of_run(trained, split)
    chosen = images.chosen
    evaluation = evaluate_trained(
        trained, chosen.images, chosen.name, watch=watching(progress, trained, len(chosen.images))
    )
    predictions = Predictions.of(evaluation.collected, trained.card.classes)
    mistakes, uncertain = _rows_for_cards(predictions, limit)
    rows = list(dict.fromkeys([*mistakes, *uncertain]))
    examined = examine_images(trained, images, progress)
    if isinstance(examined, str):
        doubts, near = Doubts((), examined), {}
    else:
        doubts = find_doubts(trained, examined, progress)
        places = [predictions.place(row) for row in rows]
        near = find_nearest(trained, examined, chosen.images.subset(places), rows)
    return RunFacts(
        trained,
        images,
        evaluation,
        predictions,
        measure_trust(predictions, evaluation.metrics),
        measure_kept(trained, evaluation),
        tuple(mistakes),
        tuple(uncertain),
        None if isinstance(examined, str) else examined,
        near,
        doubts,
        _findings(images, progress),
        compare_layers(trained),
        History.read(run),
        _document(run / ENVIRONMENT),
        _document(run / WEIGHTS),
        dump_recipe(trained.recipe),
        is_finished(run),
    )


def _rows_for_cards(predictions: Predictions, limit: int) -> tuple[list[int], list[int]]:
    """The rows of the worst mistakes and of the least certain predictions that a page has room for."""
    mistakes = predictions.worst(min(limits.MISTAKES, limit // (2 * limits.IMAGES_OF_CARD)))
    uncertain = predictions.least_certain(min(limits.UNCERTAIN, limit // (4 * limits.IMAGES_OF_CARD)))
    return mistakes, uncertain


def _findings(images: RunImages, progress: OnStage) -> Findings:
    try:
        if not images.is_large:
            report: OnProgress = partial(progress, "image")
            return Findings(check_images(images.source, report), is_whole=True)
        if images.digests is None:
            return Findings((), False, "the run recorded no digests of its images")
        return Findings(check_digests(images.source, images.digests), is_whole=False)
    except FinetuneError as error:
        return Findings((), False, str(error))


def _document(path: Path) -> Mapping[str, Any]:
    """A JSON document of a run; empty if there is none."""
    found = read_document(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
