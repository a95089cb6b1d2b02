"""The answers of several networks to the same images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.dataset import Split
from finetune.decision.probabilities import softmax
from finetune.page.album import Album, Shown
from finetune.reporting.cards import add_image
from finetune.reporting.cases import Predictions
from finetune.strategy.experiments.compare import ComparedRun


@dataclass(frozen=True)
class Answers:
    """The answers of R networks to N images. Classes are numbered as in the first run.

    Attributes:
        classes: names.
        names: (N,) the images, relative to the folder that holds them all.
        targets: (N,) class indices.
        rows: (R, N) the row of an image in the evaluation of a run; -1 if the run was not tested on it.
        predicted: (R, N) class indices; -1 where there is no answer.
        confidence: (R, N) the probability of the answer; 0 where there is none.
        of_target: (R, N) the probability of the label.
    """

    runs: tuple[ComparedRun, ...]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    targets: NDArray[np.int64]
    rows: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    of_target: NDArray[np.float64]

    @property
    def asked(self) -> NDArray[np.int64]:
        """(N,) how many networks answered."""
        return np.asarray((self.rows >= 0).sum(axis=0))

    @property
    def right(self) -> NDArray[np.bool_]:
        """(R, N) whether the answer is right; false where there is none."""
        return np.asarray((self.predicted == self.targets) & (self.rows >= 0))

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """(N,) whether the answers differ."""
        there = self.rows >= 0
        most = np.where(there, self.predicted, -1).max(axis=0)
        least = np.where(there, self.predicted, len(self.classes)).min(axis=0)
        return np.asarray(most > least)

    def sureness(self) -> NDArray[np.float64]:
        """(N,) how sure the less sure side of a dispute is: 0 where the answers are the same.

        Of all pairs of networks that disagree, the pair in which the less sure one is surest counts.
        """
        surest = self.confidence.argmax(axis=0)
        its = np.take_along_axis(self.predicted, surest[None], axis=0)
        return np.asarray(np.where(self.predicted != its, self.confidence, 0.0).max(axis=0))

    def probabilities(self, image: int) -> NDArray[np.float64]:
        """(C,) the mean of the probabilities that the networks give each class."""
        found = np.zeros(len(self.classes))
        for run, row in zip(self.runs, self.rows[:, image], strict=True):
            if row >= 0:
                places = [self.classes.index(name) for name in run.metrics.classes]
                found[places] += softmax(run.evaluation.collected.calibrated[row : row + 1])[0]
        return found / max(1, int(self.asked[image]))

    def shown(self, album: Album, image: int) -> Shown | None:
        """The thumbnail of an image; None if it cannot be read, or if there is no room."""
        place = int(np.flatnonzero(self.rows[:, image] >= 0)[0])
        run, row = self.runs[place], int(self.rows[place, image])
        index = int(run.evaluation.collected.indices[row])
        return add_image(album, run.evaluation.images, index, run.card.preprocessing.bands)


def answers_of(runs: Sequence[ComparedRun]) -> Answers:
    """Bring the answers of runs with the same classes together, image by image."""
    classes = runs[0].metrics.classes
    places: dict[str, int] = {}
    for run in runs:
        for identity in run.identities:
            places.setdefault(identity, len(places))
    shape = (len(runs), len(places))
    rows, predicted = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    confidence, of_target = np.zeros(shape), np.zeros(shape)
    targets = np.zeros(len(places), np.int64)
    names = [""] * len(places)
    for number, run in enumerate(runs):
        found = Predictions.of(run.evaluation.collected, run.metrics.classes)
        own = np.array([places[identity] for identity in run.identities], dtype=np.int64)
        numbers = np.array([classes.index(name) for name in run.metrics.classes], dtype=np.int64)
        rows[number, own] = np.arange(len(own))
        predicted[number, own] = numbers[found.predicted]
        confidence[number, own], of_target[number, own] = found.confidence, found.of_target
        targets[own] = numbers[found.targets]
        for row, place in enumerate(own.tolist()):
            names[place] = names[place] or run.evaluation.images.name(found.place(row))
    return Answers(tuple(runs), classes, short_names(names), targets, rows, predicted, confidence, of_target)


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """Paths relative to the deepest folder that holds all of them; other names as they are."""
    if not all(os.path.isabs(name) for name in names) and not all(os.sep in name for name in names):  # noqa: PTH117
        return tuple(names)
    try:
        folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    except ValueError:
        return tuple(names)
    return tuple(name.removeprefix(folder).lstrip(os.sep) for name in names)


def names_of(split: Split) -> tuple[str, ...]:
    """The short names of the images of a split."""
    return short_names([split.name(index) for index in range(len(split))])
