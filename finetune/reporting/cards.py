"""Single predictions as a page shows them: image, answer, probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from finetune.data.dataset import Split
from finetune.errors import BadImageError, printable
from finetune.page.album import Album, Shown
from finetune.page.thumbnails import SIDE, thumbnail
from finetune.reporting import limits
from finetune.reporting.cases import Predictions


@dataclass(frozen=True)
class Neighbour:
    """A training image near another one, and how alike the network finds the two."""

    image: Markup | None
    label: str
    name: str
    similarity: float


@dataclass(frozen=True)
class Card:
    """A prediction, to be shown."""

    image: Markup | None
    heat: Markup | None
    name: str
    true: str
    predicted: str
    is_right: bool
    probabilities: list[tuple[str, float]]
    nearest: list[Neighbour] = field(default_factory=list)
    hint: str = ""


def add_image(album: Album, split: Split, place: int, bands: int | None) -> Shown | None:
    """Add an image of a split to an album; None if it cannot be read, or if there is no room."""

    def make() -> str | None:
        try:
            return thumbnail(split.image(place, bands, SIDE))
        except BadImageError:
            return None

    return album.add(split.name(place), make)


def make_card(
    predictions: Predictions,
    row: int,
    name: str,
    image: Shown | None,
    heat: Shown | None = None,
    nearest: Sequence[Neighbour] = (),
) -> Card:
    """The card of a prediction.

    Args:
        name: of the image, as the page shows it.
        heat: what speaks for the answer.
        nearest: the training images that are most like it, the most similar first.
    """
    classes = predictions.classes
    true, predicted = int(predictions.targets[row]), int(predictions.predicted[row])
    best = predictions.best(row, limits.CLASSES_OF_CARD)
    if true not in [each for each, _ in best]:
        best = [*best[:-1], (true, float(predictions.of_target[row]))]
    return Card(
        None if image is None else image.tag(printable(f"{name}, labelled {classes[true]}")),
        None
        if heat is None
        else heat.tag(printable(f"heat-map: what speaks for {classes[predicted]} in {name}")),
        name,
        classes[true],
        classes[predicted],
        true == predicted,
        [(classes[each], probability) for each, probability in best],
        list(nearest),
        _hint([each.label for each in nearest], classes[true], classes[predicted]),
    )


def _hint(labels: Sequence[str], true: str, predicted: str) -> str:
    """What the nearest training images suggest of a mistake."""
    if not labels or true == predicted:
        return ""
    if all(each == predicted for each in labels):
        return "All training images that look most like it have the predicted class: is its label right?"
    if all(each == true for each in labels):
        return (
            "All training images that look most like it have its label. Still it is taken for another class."
        )
    return ""
