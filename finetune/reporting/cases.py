"""Single predictions: the worst mistakes, the least certain ones, and all of them by cell of the matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.decision.probabilities import log_softmax, ranked, softmax
from finetune.evaluation.evaluate import Collected

# Rows of logits converted to probabilities at a time.
CHUNK = 4096


@dataclass(frozen=True)
class Predictions:
    """The predictions of a network for N images of a split.

    Attributes:
        classes: names in logit order.
        targets, predicted: (N,) class indices.
        confidence: (N,) the probability of the predicted class.
        of_target: (N,) the probability of the true class.
        margin: (N,) the probability of the predicted class less that of the next one.
    """

    collected: Collected
    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    of_target: NDArray[np.float64]
    margin: NDArray[np.float64]

    @classmethod
    def of(cls, collected: Collected, classes: Sequence[str]) -> "Predictions":
        logits, targets = collected.calibrated, collected.targets
        count = len(logits)
        confidence, of_target, margin = np.empty(count), np.empty(count), np.empty(count)
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            found = np.exp(log_softmax(logits[part]))
            of_target[part] = np.take_along_axis(found, targets[part, None], axis=1)[:, 0]
            confidence[part] = found.max(axis=1)
            two = np.partition(found, -2, axis=1)[:, -2:] if found.shape[1] > 1 else found[:, [0, 0]]
            margin[part] = two[:, 1] - two[:, 0]
        predicted = logits.argmax(axis=1)
        return cls(collected, tuple(classes), targets, predicted, confidence, of_target, margin)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) whether the prediction is right."""
        return np.asarray(self.predicted == self.targets)

    def place(self, row: int) -> int:
        """The place of a row in the split."""
        return int(self.collected.indices[row])

    def best(self, row: int, count: int) -> list[tuple[int, float]]:
        """The most probable classes of a row, each with its probability."""
        logits = self.collected.calibrated[row : row + 1]
        probabilities = softmax(logits)[0]
        return [(int(each), float(probabilities[each])) for each in ranked(logits, count)[0]]

    def worst(self, count: int) -> list[int]:
        """The rows of the mistakes in which the network was surest of a wrong class, the surest first."""
        wrong = np.flatnonzero(~self.correct)
        order = np.lexsort((wrong, self.of_target[wrong] - self.confidence[wrong]))
        return [int(row) for row in wrong[order][:count]]

    def least_certain(self, count: int) -> list[int]:
        """The rows in which two classes are almost equally probable, the closest first."""
        return [int(row) for row in np.lexsort((np.arange(len(self.margin)), self.margin))[:count]]

    def cells(self) -> dict[tuple[int, int], list[int]]:
        """The rows of each cell of the confusion matrix (true, predicted), the surest first."""
        found: dict[tuple[int, int], list[int]] = {}
        for row in np.lexsort((np.arange(len(self.confidence)), -self.confidence)).tolist():
            found.setdefault((int(self.targets[row]), int(self.predicted[row])), []).append(row)
        return found
