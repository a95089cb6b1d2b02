"""Images -> class names and probabilities, batch by batch; the same whatever computes the logits.

Torch-free: what runs the network is handed in.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.checkpoint.card import ModelCard
from finetune.errors import BadImageError
from finetune.evaluation.probabilities import in_digits, ranked, softmax
from finetune.image.bands import open_image


class Classifier(Protocol):
    """A network ready to predict, with what is known about it."""

    @property
    def card(self) -> ModelCard: ...

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, channels, S, S) preprocessed images -> (N, C)."""
        ...


@dataclass(frozen=True)
class Prediction:
    """One image: the best classes with their probabilities, best first, or why there are none."""

    path: str
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """``path``, ``class``, ``probability`` and ``top``; or ``path`` and ``error``."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        top = [{"class": name, "probability": float(in_digits(p))} for name, p in self.best]
        return {"path": self.path, **top[0], "top": top}


def predict(
    classifier: Classifier, paths: Iterable[str], *, top: int, batch_size: int
) -> Iterator[list[Prediction]]:
    """Predict ``paths`` in their order, up to ``batch_size`` at a time; no more than that is ever held.

    An image that cannot be read, or for which the network computes no finite logits, is a prediction with an
    ``error``; the others go on.

    Args:
        top: how many of the best classes to give; all, where there are fewer.
    """
    remaining = iter(paths)
    while batch := list(islice(remaining, batch_size)):
        yield _predict_batch(classifier, batch, top)


def _predict_batch(classifier: Classifier, paths: list[str], top: int) -> list[Prediction]:
    card = classifier.card
    results: list[Prediction | None] = []
    images = []
    for path in paths:
        try:
            preprocessing = card.preprocessing
            images.append(preprocessing(open_image(Path(path), preprocessing.bands)))
            results.append(None)
        except BadImageError as error:
            results.append(Prediction(path, error=error.reason))
    rows = iter(classifier.logits(np.stack(images)) if images else ())
    return [
        _prediction(path, next(rows), card.classes, top) if result is None else result
        for path, result in zip(paths, results, strict=True)
    ]


def _prediction(path: str, logits: NDArray[np.float32], classes: tuple[str, ...], top: int) -> Prediction:
    if not np.isfinite(logits).all():
        return Prediction(path, error="the network computes values that are not finite for it")
    probabilities = softmax(logits[None])[0]
    order = ranked(logits[None], top)[0]
    return Prediction(path, tuple((classes[i], float(probabilities[i])) for i in order))
