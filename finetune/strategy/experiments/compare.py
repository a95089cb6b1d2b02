"""Several runs on the same test images: who is better, by how much, and at what cost."""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from finetune.data.dataset import quoted
from finetune.data.identity import file_digest
from finetune.disk.regular import TABLE_BYTES, read_regular_text
from finetune.errors import CheckpointError, DataError, printable
from finetune.evaluation.evaluate import Evaluation
from finetune.evaluation.metrics import Metrics
from finetune.evaluation.paired import Paired, paired
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.run.files import METRICS, TIMING
from finetune.training.trained import Trained, evaluate_trained, load_trained

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Contestant:
    """One run: its numbers on the images that all share, and how it came to them.

    Attributes:
        name: the run directory.
        split: test, or val where the data has no test split.
        metrics: of the best checkpoint.
        correct: image -> whether its class was found. An image is known by the content of its file.
        labels: image -> its class.
        history: the entries of ``metrics.jsonl``, one an epoch.
        seconds, images: what training took, and how many images it saw, repeats counted.
    """

    name: str
    split: str
    metrics: Metrics
    correct: dict[str, bool]
    labels: dict[str, str]
    history: tuple[dict[str, Any], ...]
    seconds: float
    images: int

    @property
    def epochs(self) -> int:
        return len(self.history)


@dataclass(frozen=True)
class Comparison:
    """All contestants, and each pair of them: places of the two, and the second against the first."""

    contestants: tuple[Contestant, ...]
    pairs: tuple[tuple[int, int, Paired], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = [each.name for each in self.contestants]
        runs = [
            {
                "run": each.name,
                "split": each.split,
                **{key: getattr(each.metrics, key) for key in ("top1", "top1_low", "top1_high", "n", "loss")},
                "seconds": each.seconds,
                "epochs": each.epochs,
                "images": each.images,
            }
            for each in self.contestants
        ]
        pairs = [{"first": names[i], "second": names[j], **each.to_dict()} for i, j, each in self.pairs]
        return {"runs": runs, "pairs": pairs}


def compare(contestants: Sequence[Contestant]) -> Comparison:
    """Compare runs pair by pair.

    Raises:
        DataError: they were not measured on the same images, or with other classes.
    """
    first = contestants[0]
    for other in contestants[1:]:
        _refuse_others(first, other)
    order = sorted(first.correct)
    columns = [_column(each, order) for each in contestants]
    places = itertools.combinations(range(len(contestants)), 2)
    return Comparison(tuple(contestants), tuple((i, j, paired(columns[i], columns[j])) for i, j in places))


def measure(run: Path, device: torch.device) -> Contestant:
    """Evaluate the best checkpoint of a run on its test images, or on val where there is no test split.

    Raises:
        RunDirError, CheckpointError: it is no run, has no checkpoint, or that is harmed.
        DataError: its images are not found, or none of them is what it was.
    """
    trained = load_trained(run, "best", device)
    evaluation = _evaluate(trained)
    classes = trained.card.classes
    found = evaluation.collected
    names = list(_identities(evaluation.images.name(int(index)) for index in found.indices))
    correct = (found.logits.argmax(axis=1) == found.targets).tolist()
    timing = _lines(run / TIMING)
    return Contestant(
        name=str(run),
        split=evaluation.split,
        metrics=evaluation.metrics,
        correct=dict(zip(names, correct, strict=True)),
        labels=dict(zip(names, (classes[int(target)] for target in found.targets), strict=True)),
        history=tuple(entry for entry in _lines(run / METRICS) if "train_loss" in entry),
        seconds=round(sum(float(entry["seconds"]) for entry in timing), 3),
        images=sum(int(entry["images"]) for entry in timing),
    )


def _evaluate(trained: Trained) -> Evaluation:
    judged = images_to_evaluate(trained)
    for warning in judged.warnings:
        log.warning("%s", warning)
    return evaluate_trained(trained, judged.images, judged.name)


def _refuse_others(first: Contestant, other: Contestant) -> None:
    if set(first.metrics.classes) != set(other.metrics.classes):
        raise DataError(
            f"{printable(first.name)} and {printable(other.name)} do not tell the same classes apart.\n"
            f"  only the first: {quoted(sorted(set(first.metrics.classes) - set(other.metrics.classes)))}\n"
            f"  only the second: {quoted(sorted(set(other.metrics.classes) - set(first.metrics.classes)))}"
        )
    if first.labels == other.labels:
        return
    shared = first.labels.keys() & other.labels.keys()
    raise DataError(
        f"{printable(first.name)} and {printable(other.name)} were not held against the same images: the "
        f"{first.split} split of "
        f"the one has {len(first.labels)}, the {other.split} split of the other {len(other.labels)}, and "
        f"{len(shared)} are in both. Where test is carved out of the data, that needs the same "
        "data.split_seed (by default the seed), test_fraction and val_fraction."
    )


def _column(contestant: Contestant, order: Iterable[str]) -> npt.NDArray[np.bool_]:
    return np.asarray([contestant.correct[name] for name in order], dtype=np.bool_)


def _identities(names: Iterable[str]) -> Iterator[str]:
    """What each image is, wherever it lies: its content, and of copies which one. No file: its name."""
    copies = Counter[str]()
    for name in names:
        content = file_digest(name, "ends") or name
        copies[content] += 1
        yield f"{content} {copies[content]}"


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_regular_text(path, TABLE_BYTES) if path.is_file() else ""
        return [dict(json.loads(line)) for line in text.splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error}).") from None
