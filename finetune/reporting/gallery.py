"""The images of a report: first those of cards, then of doubtful labels, then of the matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from finetune.data.dataset import Split
from finetune.errors import BadImageError, FinetuneError, printable
from finetune.page.album import Album, Shown
from finetune.page.thumbnails import SIDE, thumbnail
from finetune.reporting.collect import RunFacts
from finetune.reporting.heat import heated
from finetune.reporting.limits import (
    IMAGES_OF_CELL,
    IMAGES_OF_DIAGONAL,
    LABELS,
    SHARE_OF_LABELS,
)


@dataclass
class Gallery:
    """The thumbnails of a report.

    Attributes:
        album: all of them.
        heat: the heat-map of a row, by row.
        no_heat: why there are no heat-maps; else None.
    """

    album: Album
    facts: RunFacts
    heat: dict[int, Shown | None] = field(default_factory=dict)
    no_heat: str | None = None

    def of_row(self, row: int) -> Shown | None:
        """The image of a prediction."""
        return self._of(self.facts.split, self.facts.predictions.place(row))

    def of_looked(self, place: int) -> Shown | None:
        """An image by its place among those whose features were computed."""
        looked = self.facts.looked
        return None if looked is None else self._of(looked.images, place)

    def _of(self, split: Split, place: int) -> Shown | None:
        bands = self.facts.trained.card.preprocessing.bands

        def make() -> str | None:
            try:
                return thumbnail(split.image(place, bands, SIDE))
            except BadImageError:
                return None

        return self.album.add(split.name(place), make)

    def add_heat(self, rows: Sequence[int]) -> None:
        """Add the heat-maps of rows, for the class that is predicted."""
        facts = self.facts
        places = {facts.predictions.place(row): row for row in rows}
        targets = [int(facts.predictions.predicted[row]) for row in places.values()]
        try:
            found = heated(facts.trained, facts.split, list(places), targets)
        except FinetuneError as error:
            self.no_heat = str(error)
            return
        for place, image in found.items():
            row = places[place]
            self.heat[row] = self.album.add(("heat", row), lambda image=image: thumbnail(image))  # type: ignore[misc]


def fill(facts: RunFacts, limit: int) -> Gallery:
    """Choose the images of a report, at most ``limit``."""
    gallery = Gallery(Album(limit), facts)
    for row in facts.cards:
        gallery.of_row(row)
    gallery.add_heat(facts.cards)
    for row in facts.cards:
        for place, _ in facts.near.get(row, ()):
            gallery.of_looked(place)
    for doubt in facts.doubts.found[: min(LABELS, limit // SHARE_OF_LABELS)]:
        gallery.of_looked(doubt.index)
    cells = facts.predictions.cells()
    wrong = [rows for (true, predicted), rows in cells.items() if true != predicted]
    right = [rows for (true, predicted), rows in cells.items() if true == predicted]
    for group, most in ((wrong, IMAGES_OF_CELL), (right, IMAGES_OF_DIAGONAL)):
        # One of each cell, then the second of each, so that no cell takes all the room.
        for rows in zip_longest(*(each[:most] for each in group)):
            for row in rows:
                if row is not None:
                    gallery.of_row(row)
    return gallery


def cell_contents(facts: RunFacts, gallery: Gallery) -> dict[str, list[list[Any]]]:
    """What the cells of the matrix open, for the page's script.

    Returns:
        By ``true,predicted``: for each image its number in the album or null, its name, and the probability
        of the predicted class. Images with a thumbnail come first.
    """
    found: dict[str, list[list[Any]]] = {}
    for (true, predicted), rows in facts.predictions.cells().items():
        most = IMAGES_OF_DIAGONAL if true == predicted else IMAGES_OF_CELL
        shown: Mapping[int, Shown | None] = {row: gallery.of_row(row) for row in rows[:most]}
        ordered = sorted(shown, key=lambda row: shown[row] is None)
        found[f"{true},{predicted}"] = [
            [
                None if (image := shown[row]) is None else image.number,
                printable(facts.images.short(facts.split.name(facts.predictions.place(row)))),
                round(float(facts.predictions.confidence[row]), 4),
            ]
            for row in ordered
        ]
    return found
