"""The page about a cross-validation: facts to HTML. Its images are those that each fold held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from markupsafe import Markup

from finetune.features.progress import OnStage, no_progress
from finetune.page.album import Album, Shown
from finetune.page.charts import svg
from finetune.page.page import render
from finetune.recipe.load import dump_recipe, load_recipe
from finetune.recipe.schema import Recipe
from finetune.reporting import draw, limits
from finetune.reporting.cards import Card, add_image, make_card
from finetune.reporting.cases import Predictions
from finetune.reporting.cells import cell_contents, rows_of_cells
from finetune.reporting.several.answers import names_of
from finetune.reporting.several.recipes import Difference, differences
from finetune.reporting.several.subject import Subject
from finetune.reporting.tables import about_groups, class_rows, matrix, numbers
from finetune.reporting.trust import SAID, Trust, confused_pairs, measure_trust, weakest
from finetune.reporting.watch import watches
from finetune.strategy.experiments.crossval import CrossValidation, evaluate_folds
from finetune.training.run.files import RESOLVED


@dataclass(frozen=True)
class Folds:
    """Everything that the page about a cross-validation says.

    Attributes:
        found: as ``finetune cv`` computes it.
        predictions: of all images, each by the network that did not see it.
        recipe: that was cross-validated.
        changed: keys in which the recipes of the folds differ, apart from the fold. There should be none.
    """

    subject: Subject
    found: CrossValidation
    predictions: Predictions
    trust: Trust
    recipe: Recipe
    changed: tuple[Difference, ...]


def collect_folds(
    subject: Subject,
    device: torch.device,
    *,
    checkpoint: Literal["best", "last"] = "best",
    progress: OnStage = no_progress,
) -> Folds:
    """Evaluate each fold on the images that it held out.

    Raises:
        RunDirError, CheckpointError: a fold has no intact checkpoint.
        DataError: the images are not found, or changed between folds.
    """
    found = evaluate_folds(subject.runs, device, checkpoint=checkpoint, watch_of=watches(progress))
    recipes = [load_recipe(each / RESOLVED) for each in subject.runs]
    pooled = found.pooled
    predictions = Predictions.of(pooled.collected, pooled.metrics.classes)
    own = recipes[0].data.model_copy(update={"fold": None})
    return Folds(
        subject,
        found,
        predictions,
        measure_trust(predictions, pooled.metrics),
        recipes[0].model_copy(update={"data": own}),
        tuple(differences(recipes, ("data.fold.number",))),
    )


def folds_page(facts: Folds, limit: int) -> bytes:
    """Write the page about a cross-validation. The same facts give the same bytes.

    Args:
        limit: the images that the page shows, at most.
    """
    predictions, pooled = facts.predictions, facts.found.pooled
    metrics, album = pooled.metrics, Album(limit)
    bands = facts.found.card.preprocessing.bands
    names = names_of(pooled.images)
    owners = [number for number, fold in enumerate(facts.found.folds) for _ in range(len(fold.images))]
    mistakes = predictions.worst(min(limits.MISTAKES, limit))
    uncertain = predictions.least_certain(min(limits.UNCERTAIN, limit // 2))

    def name_of(row: int) -> str:
        return names[predictions.place(row)]

    def of_row(row: int) -> Shown | None:
        return add_image(album, pooled.images, predictions.place(row), bands)

    def cards(rows: Sequence[int]) -> list[Card]:
        # The fold says which network was asked.
        return [
            make_card(
                predictions, row, f"{name_of(row)} (fold {owners[predictions.place(row)]})", of_row(row)
            )
            for row in rows
        ]

    shown_mistakes, shown_uncertain = cards(mistakes), cards(uncertain)
    for row in rows_of_cells(predictions):
        of_row(row)
    return render(
        "finetune.reporting",
        "folds.html",
        styles=["report.css", "several.css"],
        scripts=["report.js"],
        facts=facts,
        name=facts.subject.place.resolve().name,
        folds=facts.found.folds,
        spread=facts.found.spread,
        metrics=metrics,
        evaluation=pooled,
        trust=facts.trust,
        said=SAID,
        correct=int(predictions.correct.sum()),
        numbers=numbers(pooled),
        about_groups=about_groups(metrics),
        weak=weakest(metrics, limits.CLASSES),
        pairs=confused_pairs(metrics.confusion, limits.PAIRS),
        classes=class_rows(pooled),
        matrix=matrix(metrics) if len(metrics.classes) <= limits.MATRIX_CLASSES else None,
        wrong=int((~predictions.correct).sum()),
        mistakes=shown_mistakes,
        uncertain=shown_uncertain,
        cells=cell_contents(predictions, of_row, name_of),
        charts=_charts(facts),
        recipe=dump_recipe(facts.recipe),
        album=album,
        limits=limits,
    )


def _charts(facts: Folds) -> dict[str, Markup]:
    folds, spread = facts.found.folds, facts.found.spread
    return {
        "accuracies": svg(
            draw.accuracies(
                [each.name for each in facts.subject.runs], [each.metrics for each in folds], spread
            ),
            "Accuracy of each fold",
            f"From {100 * spread.low:.1f} to {100 * spread.high:.1f} %, mean {100 * spread.mean:.1f} %.",
        ),
        "reliability": svg(
            draw.reliability(facts.trust.bins),
            "Reliability diagram",
            "Share of right answers against the probability that the networks gave them.",
        ),
    }
