"""Explanations: for an image and a class, its probability and the heat-map of what speaks for it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.deploy.predict import Classifier, ImageInput, input_name, read_input
from finetune.errors import BadImageError, UserError
from finetune.explain.heatmaps.compute import Method, heat_mapper
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import find_own_layers
from finetune.recipe.catalog import suggest
from finetune.training.trained import Trained


@dataclass(frozen=True, eq=False)
class Explanation:
    """What in an image speaks for a class.

    Attributes:
        name: the path as given; ``inputs[3]`` for an image in memory, counted from 0.
        label: the class.
        probability: of the class, from 0 to 1.
        predicted: whether the class is the most probable one.
        values: the heat-map: float32 (S, S) from 0 (does not speak for the class) to 1 (speaks most for it).
        image: what the network sees, resized and cropped: uint8 (S, S, 3).
    """

    name: str
    label: str
    probability: float
    predicted: bool
    values: NDArray[np.float32]
    image: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Explained:
    """The explanations of one image, the predicted class first; or why it has none."""

    name: str
    explanations: tuple[Explanation, ...] = ()
    error: str | None = None


def check_classes(wanted: Sequence[str], classes: Sequence[str]) -> None:
    """Check that the network knows some classes.

    Raises:
        UserError: it does not; the message suggests the nearest one.
    """
    for name in wanted:
        if name not in classes:
            shown = ", ".join(classes[:MOST_SHOWN]) + (", ..." if len(classes) > MOST_SHOWN else "")
            hint = suggest(name, classes) or f" The classes are {shown}."
            raise UserError(f"the model has no class {name!r}.{hint}")


# Class names in a message.
MOST_SHOWN = 10


def explain_images(
    trained: Trained,
    classifier: Classifier,
    inputs: Iterable[ImageInput],
    classes: Sequence[str] = (),
    method: Method = "gradient",
    batch_size: int = 32,
) -> Iterator[Explained]:
    """Explain the predicted class of each image, and other classes, one image after another.

    Args:
        classifier: computes the probabilities.
        inputs: as :func:`finetune.deploy.predict.predict_batches` takes them.
        classes: further classes, in the order of their explanations.
        batch_size: images per forward pass.

    Raises:
        UserError: the network does not know one of ``classes``.
    """
    card = trained.card
    check_classes(classes, card.classes)
    wanted = [card.classes.index(name) for name in dict.fromkeys(classes)]
    size = card.preprocessing.image_size
    table = find_own_layers(trained.module, card.architecture)
    maps_of = heat_mapper(trained.module, table, (card.preprocessing.channels, size, size), method)
    remaining, start = iter(inputs), 0
    while batch := list(islice(remaining, batch_size)):
        read = [_read(each, start + place, card.preprocessing) for place, each in enumerate(batch)]
        start += len(batch)
        whole = [each.network_input for each in read if each.error is None]
        logits: Iterator[NDArray[np.float32]] = iter(
            classifier.outputs(np.stack(whole)).logits if whole else ()
        )
        for each in read:
            if each.error is not None:
                yield Explained(each.name, error=each.error)
                continue
            own = next(logits)
            if not np.isfinite(own).all():
                yield Explained(each.name, error="the network computes values that are not finite for it")
                continue
            predicted = int(own.argmax())
            targets = list(dict.fromkeys([predicted, *wanted]))
            image = torch.from_numpy(each.network_input).to(trained.device)
            maps = maps_of(image.expand(len(targets), *image.shape), torch.tensor(targets))
            probabilities = card.decision.probabilities(own[None])[0]
            yield Explained(
                each.name,
                tuple(
                    Explanation(
                        each.name,
                        card.classes[target],
                        float(probabilities[target]),
                        target == predicted,
                        values,
                        each.seen,
                    )
                    for target, values in zip(targets, maps, strict=True)
                ),
            )


@dataclass(frozen=True, eq=False)
class _Read:
    """An image as the network takes it, and as a person sees it; or why it cannot be read."""

    name: str
    network_input: NDArray[np.float32]
    seen: NDArray[np.uint8]
    error: str | None = None


def _read(image: ImageInput, index: int, preprocessing: Preprocessing) -> _Read:
    name = input_name(image, index)
    try:
        fitted = preprocessing.geometry(read_input(name, image, preprocessing.bands))
        network_input = preprocessing.normalize(fitted)
    except BadImageError as error:
        nothing = np.zeros((0, 0, 3))
        return _Read(name, nothing.astype(np.float32), nothing.astype(np.uint8), error.reason)
    pixels = np.asarray(fitted, dtype=np.uint8)
    if preprocessing.channels == 1:
        pixels = preprocessing.colours(pixels).repeat(3, axis=2)
    return _Read(name, network_input, pixels[:, :, :3])
