"""The page about the runs of several seeds: facts to HTML."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from finetune.errors import printable
from finetune.features.progress import OnStage, no_progress
from finetune.page.album import Album
from finetune.page.charts import svg
from finetune.page.page import render
from finetune.recipe.load import dump_recipe
from finetune.reporting import draw, limits
from finetune.reporting.run.page import SEEN
from finetune.reporting.several.answers import Answers, answers_of
from finetune.reporting.several.recipes import Difference, differences
from finetune.reporting.several.subject import Subject
from finetune.reporting.tables import about_groups
from finetune.reporting.watch import watches
from finetune.strategy.experiments.compare import ComparedRun, measure, refuse_other_classes
from finetune.strategy.experiments.compare_figure import draw_runs
from finetune.strategy.experiments.spread import Spread, of_repeats

# The keys in which the recipes of several seeds may differ.
OF_SEEDS = ("seed", "data.split_seed")


@dataclass(frozen=True)
class Seeds:
    """Everything that the page about several seeds says.

    Attributes:
        spread: of the accuracies, as ``train --seeds`` prints it.
        changed: keys in which the recipes differ, apart from the seed. There should be none.
        same_images: whether all seeds were tested on the same images.
    """

    subject: Subject
    runs: tuple[ComparedRun, ...]
    spread: Spread
    answers: Answers
    changed: tuple[Difference, ...]
    same_images: bool


def collect_seeds(
    subject: Subject,
    split: str | None,
    device: torch.device,
    *,
    checkpoint: Literal["best", "last"] = "best",
    progress: OnStage = no_progress,
) -> Seeds:
    """Evaluate the runs of several seeds, each once.

    Raises:
        RunDirError, CheckpointError: a run has no intact checkpoint.
        DataError: the runs have other classes, or there is no such split.
    """
    watch_of = watches(progress)
    runs = tuple(
        measure(each, device, split=split, checkpoint=checkpoint, watch_of=watch_of) for each in subject.runs
    )
    for each in runs[1:]:
        refuse_other_classes(runs[0], each)
    return Seeds(
        subject,
        runs,
        of_repeats([each.metrics.top1 for each in runs]),
        answers_of(runs),
        tuple(differences([each.recipe for each in runs], OF_SEEDS)),
        all(each.labels == runs[0].labels for each in runs[1:]),
    )


def seeds_page(facts: Seeds, limit: int) -> bytes:
    """Write the page about several seeds. The same facts give the same bytes.

    Args:
        limit: the images that the page shows, at most.
    """
    answers, runs = facts.answers, facts.runs
    names = [each.name for each in facts.subject.runs]
    album = Album(limit)
    hard, unsteady = _hard(answers), _unsteady(answers)
    return render(
        "finetune.reporting",
        "seeds.html",
        styles=["report.css", "several.css"],
        facts=facts,
        runs=runs,
        names=names,
        name=facts.subject.place.resolve().name,
        split=runs[0].split,
        seen=SEEN.get(runs[0].split, ""),
        spread=facts.spread,
        lines=list(zip(names, runs, answers.right.sum(axis=1).tolist(), strict=True)),
        about_groups=about_groups(runs[0].metrics),
        warnings=[
            f"{name}: {text}" for name, each in zip(names, runs, strict=True) for text in each.warnings
        ],
        charts=_charts(facts, names),
        classes=_class_rows(facts),
        images=len(answers.names),
        steady=int(((answers.right.sum(axis=0) == answers.asked) & (answers.asked > 1)).sum()),
        hard=len(hard),
        unsteady=len(unsteady),
        hard_cards=_cards(answers, hard[: limits.HARD], album),
        unsteady_cards=_cards(answers, unsteady[: limits.UNSTEADY], album),
        recipe=dump_recipe(runs[0].recipe),
        limits=limits,
        varied="data.split_seed" in {each.key for each in differences([each.recipe for each in runs])},
    )


def _hard(answers: Answers) -> NDArray[np.int64]:
    """The images that two seeds or more were tested on, none with success, the surest mistakes first."""
    found = np.flatnonzero((answers.asked > 1) & ~answers.right.any(axis=0))
    sureness = (answers.confidence - answers.of_target).sum(axis=0) / answers.asked
    return np.asarray(found[np.lexsort((found, -sureness[found]))])


def _unsteady(answers: Answers) -> NDArray[np.int64]:
    """The images that some seeds are right about, those first about which most nearly half are."""
    right = answers.right.sum(axis=0)
    found = np.flatnonzero((right > 0) & (right < answers.asked))
    off = np.abs(right[found] / answers.asked[found] - 0.5)
    return np.asarray(found[np.lexsort((found, -answers.sureness()[found], off))])


@dataclass(frozen=True)
class SeedsCard:
    """An image, what the seeds say of it, and the mean of their probabilities."""

    image: Markup | None
    name: str
    true: str
    said: str
    probabilities: list[tuple[str, float]]


def _cards(answers: Answers, images: Iterable[np.int64], album: Album) -> list[SeedsCard]:
    found = []
    for image in map(int, images):
        label, name = int(answers.targets[image]), answers.names[image]
        asked, right = int(answers.asked[image]), int(answers.right[:, image].sum())
        mean = answers.probabilities(image)
        best = [int(each) for each in np.argsort(-mean, kind="stable")[: limits.CLASSES_OF_CARD]]
        if label not in best:
            best = [*best[:-1], label]
        shown = answers.shown(album, image)
        found.append(
            SeedsCard(
                None if shown is None else shown.tag(printable(f"{name}, labelled {answers.classes[label]}")),
                name,
                answers.classes[label],
                f"Wrong with all {asked} seeds" if not right else f"Right with {right} of {asked} seeds",
                [(answers.classes[each], float(mean[each])) for each in best],
            )
        )
    return found


def _class_rows(facts: Seeds) -> list[dict[str, Any]]:
    """Per class: the mean, least and largest share that a seed finds, and its images."""
    rows = []
    for place, name in enumerate(facts.answers.classes):
        entries = [each.metrics.per_class[each.metrics.classes.index(name)] for each in facts.runs]
        recalls = [each.recall for each in entries if each.support]
        supports = [each.support for each in entries]
        rows.append(
            {
                "place": place,
                "name": name,
                "supports": (min(supports), max(supports)),
                "mean": float(np.mean(recalls)) if recalls else None,
                "low": min(recalls, default=None),
                "high": max(recalls, default=None),
            }
        )
    return rows


def _charts(facts: Seeds, names: list[str]) -> dict[str, Markup]:
    few = len(facts.runs) <= limits.CURVES
    spread = facts.spread
    found = {
        "accuracies": svg(
            draw.accuracies(names, [each.metrics for each in facts.runs], spread, coloured=few),
            "Accuracy with each seed",
            f"From {100 * spread.low:.1f} to {100 * spread.high:.1f} %, mean {100 * spread.mean:.1f} %.",
        )
    }
    if few and max(each.epochs for each in facts.runs) > 1:
        found["curves"] = svg(
            draw_runs(facts.runs, names), "Accuracy and loss per epoch", "One colour per seed."
        )
    return found
