"""Compares runs on the same test images: accuracy, difference, and cost."""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.checkpoint.card import ModelCard
from finetune.data.batches.batch import Batch
from finetune.data.dataset import quoted
from finetune.data.identity import file_digest
from finetune.errors import DataError, UserError, printable
from finetune.evaluation.evaluate import Evaluation
from finetune.evaluation.metrics import Metrics
from finetune.evaluation.paired import Paired, paired, test_name
from finetune.recipe.defaults import DEFAULT_LR, FROM_SCRATCH_LR_FACTOR
from finetune.recipe.schema import Recipe
from finetune.strategy.experiments.shared_groups import join_groups, same_groups, with_groups
from finetune.training.curves import History, read_lines
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.run.files import TIMING
from finetune.training.trained import Trained, evaluate_trained, load_trained

log = logging.getLogger("finetune")

# Given a network and the number of its images, returns what wraps the batches of its evaluation.
WatchOf = Callable[[Trained, int], Callable[[Iterable[Batch]], Iterable[Batch]]]


def unwatched(_trained: Trained, _images: int) -> Callable[[Iterable[Batch]], Iterable[Batch]]:
    """Report nothing while batches pass."""
    return iter


@dataclass(frozen=True)
class ComparedRun:
    """A run with its results on the shared images, and its cost.

    Attributes:
        name: the run directory.
        card, recipe: of the network that was evaluated.
        evaluation: of the best checkpoint, on test, or on val if the data has no test split.
        identities: (N,) identifies the image of each row of ``evaluation.collected`` by its content.
        warnings: reasons to trust the metrics less.
        history: the metrics of its epochs and of its test.
        seconds, images: the training time, val and the features of frozen layers included, and the number of
            images seen, with repetition.
    """

    name: str
    card: ModelCard
    recipe: Recipe
    evaluation: Evaluation
    identities: tuple[str, ...]
    warnings: tuple[str, ...]
    history: History
    seconds: float
    images: int

    @property
    def split(self) -> str:
        return self.evaluation.split

    @property
    def metrics(self) -> Metrics:
        return self.evaluation.metrics

    @property
    def epochs(self) -> int:
        return len(self.history.epochs)

    @cached_property
    def correct(self) -> dict[str, bool]:
        """Image -> whether it was classified correctly."""
        found = self.evaluation.collected
        right = (found.logits.argmax(axis=1) == found.targets).tolist()
        return dict(zip(self.identities, right, strict=True))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Image -> class."""
        classes = self.metrics.classes
        labels = (classes[int(target)] for target in self.evaluation.collected.targets)
        return dict(zip(self.identities, labels, strict=True))


@dataclass(frozen=True)
class Comparison:
    """All runs, and each pair: the places of the two, and the second compared with the first.

    ``warnings`` are reasons to look twice.
    """

    runs: tuple[ComparedRun, ...]
    pairs: tuple[tuple[int, int, Paired], ...]
    warnings: tuple[str, ...] = ()

    @property
    def groups(self) -> int | None:
        """The number of groups that intervals and tests count; None if images have no groups."""
        return self.runs[0].metrics.groups

    @property
    def test(self) -> str:
        """The name of the test of each pair."""
        return test_name(self.groups)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = [each.name for each in self.runs]
        runs = [
            {
                "run": each.name,
                "split": each.split,
                **({} if self.groups is None else {"groups": self.groups}),
                **{key: getattr(each.metrics, key) for key in ("top1", "top1_low", "top1_high", "n", "loss")},
                "seconds": each.seconds,
                "epochs": each.epochs,
                "images": each.images,
            }
            for each in self.runs
        ]
        pairs = [
            {"first": names[i], "second": names[j], **asdict(each), "test": each.test}
            for i, j, each in self.pairs
        ]
        return {"runs": runs, "pairs": pairs}


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Compare runs pair by pair, by groups where a run has ``data.group_by``.

    Groups belong to the images. So where runs group them in different ways, or some not at all, the groups
    are joined, and hold for all runs.

    Raises:
        DataError: the runs have different classes or test images.
    """
    first = runs[0]
    for other in runs[1:]:
        _refuse_others(first, other)
    order = sorted(first.correct)
    rows = [_rows(each, order) for each in runs]
    found = [each.evaluation.collected.groups for each in runs]
    given = [None if each is None else each[own] for each, own in zip(found, rows, strict=True)]
    groups = join_groups(given)
    warnings: tuple[str, ...] = ()
    if groups is not None and not all(same_groups(each, groups) for each in given):
        runs = [
            replace(each, evaluation=with_groups(each.evaluation, groups[np.argsort(own)]))
            for each, own in zip(runs, rows, strict=True)
        ]
        warnings = (
            "the runs have different data.group_by. Two images count as one group here if any run says so: "
            f"{len(np.unique(groups)):,} groups",
        )
    columns = [np.asarray([each.correct[name] for name in order], dtype=np.bool_) for each in runs]
    places = itertools.combinations(range(len(runs)), 2)
    pairs = tuple((i, j, paired(columns[i], columns[j], groups)) for i, j in places)
    return Comparison(tuple(runs), pairs, warnings)


def measure(
    run: Path,
    device: torch.device,
    *,
    split: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    watch_of: WatchOf = unwatched,
) -> ComparedRun:
    """Evaluate a checkpoint of a run.

    Args:
        split: train, val or test; None: test, or val if there is no test split.

    Raises:
        RunDirError, CheckpointError: it is not a run, or its checkpoint is missing or damaged.
        DataError: its images are missing, or all have changed; or there is no such split.
    """
    trained = load_trained(run, checkpoint, device)
    chosen = images_to_evaluate(trained, split)
    for warning in chosen.warnings:
        log.warning("%s", warning)
    watch = watch_of(trained, len(chosen.images))
    evaluation = evaluate_trained(trained, chosen.images, chosen.name, watch=watch)
    names = (evaluation.images.name(int(index)) for index in evaluation.collected.indices)
    timing = read_lines(run / TIMING)
    return ComparedRun(
        name=str(run),
        card=trained.card,
        recipe=trained.recipe,
        evaluation=evaluation,
        identities=tuple(_identities(names)),
        warnings=chosen.warnings,
        history=History.read(run),
        seconds=round(sum(entry["seconds"] + entry.get("features_seconds", 0) for entry in timing), 3),
        images=sum(int(entry["images"]) for entry in timing),
    )


def from_scratch(recipe: Recipe) -> Recipe:
    """Return ``recipe`` with random weights; images, sizes, epochs and seed stay.

    Nothing is frozen, and head and body have the same learning rate. It is ten times the recipe's, the usual
    factor between fine-tuning and training from scratch. A phase that trains only a head has no rate for the
    body; there, the default is used. Settings that refer to source weights are removed: L2-SP, layer decay,
    frozen BatchNorm statistics, reused rows of the source's classifier.

    Raises:
        UserError: the recipe has no source weights.
    """
    if recipe.model.weights == "none":
        raise UserError("--against scratch: model.weights is none already, so both runs would be the same")
    document = recipe.model_dump(mode="json")
    model, train = document["model"], document["train"]
    model["weights"] = "none"
    model["head"]["reuse"] = None
    model["batchnorm"] = "train"
    if train["l2_sp"] is not None:
        train["l2_sp"], train["weight_decay"] = None, "auto"
    for phase in train["phases"]:
        if phase["freeze"] == "backbone":
            phase["lr"] = DEFAULT_LR[phase["optimizer"]]
        phase["lr"] *= FROM_SCRATCH_LR_FACTOR
        phase |= {"freeze": "none", "head_lr_mult": 1.0, "layer_decay": None}
        if recipe.train.l2_sp is not None:
            phase["weight_decay"] = None
    return Recipe.model_validate_json(json.dumps(document))


def refuse_other_classes(first: ComparedRun, other: ComparedRun) -> None:
    """Check that two runs have the same classes.

    Raises:
        DataError: they do not.
    """
    if set(first.metrics.classes) != set(other.metrics.classes):
        raise DataError(
            f"{printable(first.name)} and {printable(other.name)} have different classes.\n"
            f"  only the first: {quoted(sorted(set(first.metrics.classes) - set(other.metrics.classes)))}\n"
            f"  only the second: {quoted(sorted(set(other.metrics.classes) - set(first.metrics.classes)))}"
        )


def _rows(run: ComparedRun, order: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the row of each image of ``order`` in the evaluation of a run."""
    place_of = {name: place for place, name in enumerate(run.identities)}
    return np.asarray([place_of[name] for name in order], dtype=np.int64)


def _refuse_others(first: ComparedRun, other: ComparedRun) -> None:
    refuse_other_classes(first, other)
    if first.labels == other.labels:
        return
    shared = first.labels.keys() & other.labels.keys()
    raise DataError(
        f"{printable(first.name)} and {printable(other.name)} were not evaluated on the same images: "
        f"the {first.split} split of the first has {len(first.labels)}, the {other.split} split of the "
        f"second {len(other.labels)}, and {len(shared)} are in both. If test is held out "
        "from the data, use the same data.split_seed (default: the seed), test_fraction and val_fraction."
    )


def _identities(names: Iterable[str]) -> Iterator[str]:
    """Identify each image by its content, and number copies; an image without a file by its name."""
    copies = Counter[str]()
    for name in names:
        content = file_digest(name, "ends") or name
        copies[content] += 1
        yield f"{content} {copies[content]}"
