"""The images of a report: first those of cards, then of doubtful labels, then of the matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune.data.dataset import Split
from finetune.errors import FinetuneError
from finetune.page.album import Album, Shown
from finetune.page.thumbnails import thumbnail
from finetune.reporting.cards import add_image
from finetune.reporting.cells import rows_of_cells
from finetune.reporting.limits import LABELS, SHARE_OF_LABELS
from finetune.reporting.run.collect import RunFacts
from finetune.reporting.run.heat import heated


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

    def of_examined(self, place: int) -> Shown | None:
        """An image by its place among those whose features were computed."""
        examined = self.facts.examined
        return None if examined is None else self._of(examined.images, place)

    def _of(self, split: Split, place: int) -> Shown | None:
        return add_image(self.album, split, place, self.facts.trained.card.preprocessing.bands)

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
            gallery.of_examined(place)
    for doubt in facts.doubts.found[: min(LABELS, limit // SHARE_OF_LABELS)]:
        gallery.of_examined(doubt.index)
    for row in rows_of_cells(facts.predictions):
        gallery.of_row(row)
    return gallery
