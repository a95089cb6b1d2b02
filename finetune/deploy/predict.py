"""Predict the classes of images with any classifier: a torch network or an ONNX file. Torch-free."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.checkpoint.card import ModelCard
from finetune.decision.conformal import chance_of
from finetune.decision.decision import Rules
from finetune.decision.probabilities import in_digits, ranked, softmax
from finetune.decision.wanted import ALL, Wanted
from finetune.deploy.memory_images import from_memory
from finetune.errors import BadImageError
from finetune.image.bands import open_image
from finetune.image.pixels import ImageOrBands

# A path, a Pillow image, or uint8 pixels: (H, W), (H, W, 3) or (H, W, bands).
ImageInput = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Outputs:
    """What a network computes for N images.

    Attributes:
        logits: (N, C) float32.
        probabilities: (N, C) float32, calibrated, where the graph of an exported file computes them; else
            None. Predictions come from the logits, in float64.
        novelty: (N,) float32, how unlike the training images each image is; None if the model does not know.
    """

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None = None
    novelty: NDArray[np.float32] | None = None


class Classifier(Protocol):
    """A network that is ready to predict, and the card that describes it."""

    @property
    def card(self) -> ModelCard: ...

    def outputs(self, images: NDArray[np.float32]) -> Outputs:
        """Compute logits and scores for (N, channels, S, S) preprocessed images."""
        ...


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        name: the path as given; ``inputs[3]`` for an image in memory, counted from 0.
        classes: class names, most probable first; empty on an error.
        probabilities: their calibrated probabilities, in the same order.
        error: why the image has no prediction; None if it has one.
        decided: the class that the model's working point decides; None without a working point.
        decided_probability: its probability.
        prediction_set: the classes that fit, most probable first; empty: no class fits well enough. None: no
            ``coverage`` was asked.
        is_sure: whether the image is answered; None: no accuracy was asked (``abstain``).
        novelty: how unlike the training images the image is, from 0 to 2; None: the model does not know.
        is_novel: whether it is less like them than 95 % of the images of val; None: the model does not know,
            or val had too few images for a threshold.
    """

    name: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    decided: str | None = None
    decided_probability: float | None = None
    prediction_set: tuple[str, ...] | None = None
    is_sure: bool | None = None
    novelty: float | None = None
    is_novel: bool | None = None

    @property
    def label(self) -> str:
        """The class that the model's working point decides; without one, the most probable class.

        Raises:
            BadImageError: the image has no prediction.
        """
        return self._best()[0]

    @property
    def probability(self) -> float:
        """The probability of :attr:`label`. Raises as it does."""
        return self._best()[1]

    @property
    def is_overruled(self) -> bool:
        """Whether the working point decides another class than the most probable one."""
        return self.decided is not None and self.decided != self.classes[0]

    def _best(self) -> tuple[str, float]:
        if self.error is not None:
            raise BadImageError(self.name, self.error)
        if self.decided is not None and self.decided_probability is not None:
            return self.decided, self.decided_probability
        return self.classes[0], self.probabilities[0]

    def ranking(self) -> list[tuple[str, float]]:
        """Pairs of class and probability, most probable first."""
        return list(zip(self.classes, self.probabilities, strict=True))

    def others(self) -> list[tuple[str, float]]:
        """The classes of :meth:`ranking` without :attr:`label`, and always one less than it has."""
        label = self.label
        return [pair for pair in self.ranking() if pair[0] != label][: len(self.classes) - 1]

    def to_dict(self) -> dict[str, Any]:
        """``path``, ``class``, ``probability`` and ``top``, ``set`` and ``sure`` if they were asked for,
        ``novelty`` and ``novel`` if the model knows them; or ``path`` and ``error``.

        ``class`` is :attr:`label`; ``top`` is in the order of probability. ``decided`` names the class where
        the working point decides another one than the most probable.
        """
        if self.error is not None:
            return {"path": self.name, "error": self.error}
        top = [_entry(*pair) for pair in self.ranking()]
        found = {"path": self.name, **_entry(*self._best()), "top": top}
        if self.is_overruled:
            found["decided"] = self.decided
        if self.prediction_set is not None:
            found["set"] = list(self.prediction_set)
        if self.is_sure is not None:
            found["sure"] = self.is_sure
        if self.novelty is not None:
            found["novelty"] = float(in_digits(self.novelty))
        if self.is_novel is not None:
            found["novel"] = self.is_novel
        return found


def _entry(name: str, probability: float) -> dict[str, Any]:
    return {"class": name, "probability": float(in_digits(probability))}


def predict_batches(
    classifier: Classifier, inputs: Iterable[ImageInput], *, batch_size: int, wanted: Wanted = ALL
) -> Iterator[list[Prediction]]:
    """Predict the classes of images, in order; yield one list of predictions per batch.

    At most ``batch_size`` images are in memory. An image that cannot be read, or whose logits are not finite,
    yields a prediction with an ``error``; the other images are unaffected.

    Args:
        inputs: paths, Pillow images or uint8 arrays, mixed as you like;
            :func:`finetune.deploy.memory_images.from_memory` lists the shapes.
        wanted: what each prediction holds.

    Raises:
        UserError: the model cannot give what is wanted.
    """
    return _predict(classifier, inputs, batch_size, classifier.card.decision.rules(wanted))


def _predict(
    classifier: Classifier, inputs: Iterable[ImageInput], batch_size: int, rules: Rules
) -> Iterator[list[Prediction]]:
    remaining = iter(inputs)
    start = 0
    while batch := list(islice(remaining, batch_size)):
        named = [(input_name(each, start + place), each) for place, each in enumerate(batch)]
        yield _predict_batch(classifier, named, rules)
        start += len(batch)


def input_name(image: ImageInput, index: int) -> str:
    """The path of an image; ``inputs[3]`` for one in memory."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"inputs[{index}]"


def read_input(name: str, image: ImageInput, bands: int | None) -> ImageOrBands:
    """Read or convert an image to what preprocessing takes.

    Raises:
        BadImageError: it cannot be read.
    """
    if isinstance(image, Image.Image | np.ndarray):
        return from_memory(image, name, bands)
    return open_image(Path(name), bands)


def _predict_batch(
    classifier: Classifier, named: list[tuple[str, ImageInput]], rules: Rules
) -> list[Prediction]:
    card = classifier.card
    preprocessing = card.preprocessing
    predictions, preprocessed = [], []
    for name, image in named:
        try:
            preprocessed.append(preprocessing(read_input(name, image, preprocessing.bands)))
            predictions.append(Prediction(name))
        except BadImageError as error:
            predictions.append(Prediction(name, error=error.reason))
    if not preprocessed:
        return predictions
    outputs = classifier.outputs(np.stack(preprocessed))
    rows, images = iter(outputs.logits), iter(preprocessed)
    scores = repeat(None) if outputs.novelty is None else iter(outputs.novelty)
    return [
        _with_novelty(_prediction(each.name, next(rows), next(images), card, rules), next(scores), card)
        if each.error is None
        else each
        for each in predictions
    ]


def _with_novelty(prediction: Prediction, score: float | None, card: ModelCard) -> Prediction:
    """Add to a prediction how unlike the training images its image is, if a score is known."""
    novelty = card.decision.novelty
    if prediction.error is not None or score is None or novelty is None:
        return prediction
    return replace(prediction, novelty=float(score), is_novel=novelty.is_novel(float(score)))


def _prediction(
    name: str, row: NDArray[np.float32], image: NDArray[np.float32], card: ModelCard, rules: Rules
) -> Prediction:
    """Make the prediction of one image from its logits ``row`` and its preprocessed pixels ``image``."""
    if not np.isfinite(row).all():
        return Prediction(name, error="the network computes values that are not finite for it")
    classes, top = card.classes, rules.wanted.top
    logits = card.decision.calibrated(row[None])
    probabilities = softmax(logits)[0]
    order = ranked(logits, len(classes))[0]
    best = order if top is None else order[:top]
    found = Prediction(name, tuple(classes[i] for i in best), tuple(float(probabilities[i]) for i in best))
    if (point := card.decision.working_point) is not None:
        decided = int(point.decide(probabilities[None], classes)[0])
        at = float(probabilities[decided])
        found = replace(found, decided=classes[decided], decided_probability=at)
    if rules.sets is not None:
        members = rules.sets.members(logits, np.array([chance_of(image)]))[0]
        found = replace(found, prediction_set=tuple(classes[i] for i in order if members[i]))
    if rules.answers is not None:
        found = replace(found, is_sure=bool(rules.answers.is_sure(logits)[0]))
    return found
