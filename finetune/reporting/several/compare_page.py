"""The page about several runs beside each other: facts to HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import torch
from markupsafe import Markup

from finetune.evaluation.paired import Paired
from finetune.evaluation.text import by_groups
from finetune.features.progress import OnStage, no_progress
from finetune.page.album import Album
from finetune.page.charts import svg
from finetune.page.page import render
from finetune.reporting import draw, limits
from finetune.reporting.finished import is_finished
from finetune.reporting.several.answers import Answers, answers_of
from finetune.reporting.several.disputes import disputes
from finetune.reporting.several.recipes import Difference, differences
from finetune.reporting.watch import watches
from finetune.strategy.experiments.compare import Comparison, compare, measure
from finetune.strategy.experiments.compare_figure import draw_runs

# A p-value below this one is taken as a difference; of several pairs, below its equal share (Bonferroni).
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Compared:
    """Everything that the page about several runs says.

    Attributes:
        names: of the runs, each another one.
        finished: whether the training of each run came to its end.
        changed: the keys in which their recipes differ.
    """

    names: tuple[str, ...]
    comparison: Comparison
    answers: Answers
    finished: tuple[bool, ...]
    changed: tuple[Difference, ...]

    @property
    def least_p(self) -> float:
        """The p-value below which a pair counts as different."""
        return SIGNIFICANT / len(self.comparison.pairs)


def compare_runs(
    runs: Sequence[Path],
    split: str | None,
    device: torch.device,
    *,
    checkpoint: Literal["best", "last"] = "best",
    progress: OnStage = no_progress,
) -> Compared:
    """Evaluate runs, each once, and compare them.

    Raises:
        RunDirError, CheckpointError: a run has no intact checkpoint.
        DataError: the runs have other classes or other images, or there is no such split.
    """
    watch_of = watches(progress)
    found = [measure(each, device, split=split, checkpoint=checkpoint, watch_of=watch_of) for each in runs]
    comparison = compare(found)
    return Compared(
        distinct_names(runs),
        comparison,
        answers_of(comparison.runs),
        tuple(map(is_finished, runs)),
        tuple(differences([each.recipe for each in found])),
    )


def compare_page(facts: Compared, limit: int) -> bytes:
    """Write the page about several runs. The same facts give the same bytes.

    Args:
        limit: the images that the page shows, at most.
    """
    runs, answers = facts.comparison.runs, facts.answers
    letters, groups = ascii_uppercase[: len(runs)], facts.comparison.groups
    album = Album(limit)
    pairs = [_pair(facts, letters, *each) for each in facts.comparison.pairs]
    return render(
        "finetune.reporting",
        "compare.html",
        styles=["report.css", "several.css"],
        facts=facts,
        runs=runs,
        letters=letters,
        split=runs[0].split,
        right=answers.right.sum(axis=1).tolist(),
        warnings=_warnings(facts, letters),
        pairs=pairs,
        test="McNemar's test on the same images"
        if groups is None
        else f"sign-flip test by {groups:,} groups",
        by_groups=by_groups(groups),
        better=_who_beats_whom(pairs),
        beaten=sum(each["shown"] for each in pairs),
        charts=_charts(facts, letters),
        classes=_class_rows(facts),
        disputes=disputes(answers, album, letters),
        disputed=int(answers.disputed.sum()),
        all_right=int(answers.right.all(axis=0).sum()),
        same_wrong=int((~answers.right.any(axis=0) & ~answers.disputed).sum()),
        limits=limits,
    )


def distinct_names(runs: Sequence[Path]) -> tuple[str, ...]:
    """The names of directories: as few of their last parts as tell them apart."""
    paths = [each.resolve() for each in runs]
    for count in range(1, max(len(each.parts) for each in paths) + 1):
        names = ["/".join(each.parts[-count:]) for each in paths]
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(map(str, runs))


def _warnings(facts: Compared, letters: str) -> list[str]:
    found = list(facts.comparison.warnings)
    for letter, each, finished in zip(letters, facts.comparison.runs, facts.finished, strict=True):
        if not finished:
            found.append(f"{letter}: this training is not finished. Its numbers are those so far.")
        found += [f"{letter}: {warning}" for warning in each.warnings]
        bad = len(each.evaluation.collected.bad)
        if bad:
            found.append(f"{letter}: {bad:,} of its images could not be read and are in none of the numbers.")
    return found


def _pair(facts: Compared, letters: str, first: int, second: int, pair: Paired) -> dict[str, Any]:
    """A pair in the words of its better run: ``difference`` is that of ``better`` less ``worse``."""
    swapped = pair.difference < 0
    difference, low, high = (
        (-pair.difference, -pair.high, -pair.low) if swapped else (pair.difference, pair.low, pair.high)
    )
    right = facts.answers.right
    return {
        "first": first,
        "second": second,
        "pair": pair,
        "better": letters[first if swapped else second],
        "worse": letters[second if swapped else first],
        "difference": difference,
        "low": low,
        "high": high,
        "shown": pair.p < facts.least_p and low > 0,
        "both": int((right[first] & right[second]).sum()),
        "neither": int((~right[first] & ~right[second]).sum()),
    }


def _who_beats_whom(pairs: Sequence[dict[str, Any]]) -> list[str]:
    """What the pairs show, the run that is better than most others first: ``B is better than A and C``."""
    beaten: dict[str, list[str]] = {}
    for each in pairs:
        if each["shown"]:
            beaten.setdefault(each["better"], []).append(each["worse"])
    order = sorted(beaten, key=lambda letter: (-len(beaten[letter]), letter))
    return [f"{letter} is better than {_and(sorted(beaten[letter]))}" for letter in order]


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _class_rows(facts: Compared) -> list[dict[str, Any]]:
    """Per class of the first run: its images, and the share that each run finds, with the best one."""
    answers = facts.answers
    places = [
        {name: place for place, name in enumerate(each.metrics.classes)} for each in facts.comparison.runs
    ]
    rows = []
    for place, name in enumerate(answers.classes):
        found = [
            each.metrics.per_class[own[name]] for each, own in zip(facts.comparison.runs, places, strict=True)
        ]
        recalls = [each.recall for each in found]
        rows.append(
            {
                "place": place,
                "name": name,
                "support": found[0].support,
                "recalls": recalls,
                "best": max(recalls) if len(set(recalls)) > 1 else None,
            }
        )
    return rows


def _charts(facts: Compared, letters: str) -> dict[str, Markup]:
    runs = facts.comparison.runs
    labels = [f"{letter}: {name}" for letter, name in zip(letters, facts.names, strict=True)]
    found = {
        "accuracies": svg(
            draw.accuracies(labels, [each.metrics for each in runs], coloured=True),
            "Accuracy of each run",
            "With 95 % intervals. The table has the numbers.",
        )
    }
    if max(each.epochs for each in runs) > 1 and len(runs) <= limits.CURVES:
        found["curves"] = svg(
            draw_runs(runs, labels),
            "Accuracy and loss per epoch",
            "One colour per run: "
            + "; ".join(
                f"{letter} ends at {100 * each.history.epochs[-1]['val_top1']:.1f} % on val"
                for letter, each in zip(letters, runs, strict=True)
                if each.history.epochs
            ),
        )
    return found
