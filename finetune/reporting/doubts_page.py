"""A contact sheet of the images whose labels may be wrong."""

from finetune.data.sources.read import is_path
from finetune.errors import printable
from finetune.page.album import Album
from finetune.page.page import render
from finetune.reporting.cards import Card, add_image
from finetune.strategy.doctor.doubts import DoubtfulLabels
from finetune.strategy.doctor.labels import DoubtfulLabel


def doubts_page(doubts: DoubtfulLabels, place: str, limit: int) -> bytes:
    """Write the page, the most doubtful first. The same labels and images give the same bytes.

    Args:
        place: what the doctor was given.
        limit: the images that the page shows, at most.
    """
    album = Album(limit)
    shown = doubts.found[:limit]
    return render(
        "finetune.reporting",
        "doubts.html",
        styles=["report.css", "several.css"],
        doubts=doubts,
        place=place,
        can_relabel=is_path(doubts.source),
        sure=[_card(doubts, each, album) for each in shown if each.is_sure],
        others=[_card(doubts, each, album) for each in shown if not each.is_sure],
        shown=len(shown),
    )


def _card(doubts: DoubtfulLabels, doubt: DoubtfulLabel, album: Album) -> Card:
    own, name = doubts.named(doubt), doubts.relative(doubt)
    image = add_image(album, doubts.images, doubt.index, doubts.bands)
    return Card(
        None if image is None else image.tag(printable(f"{name}, labelled {own.label}")),
        None,
        name,
        own.label,
        own.suggested,
        False,
        [(own.suggested, own.suggested_probability), (own.label, own.probability)],
    )
