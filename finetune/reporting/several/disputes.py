"""The images on which runs disagree, the surest disagreements first."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from finetune.errors import printable
from finetune.page.album import Album
from finetune.reporting import limits
from finetune.reporting.several.answers import Answers


@dataclass(frozen=True)
class Answer:
    """The answer of one run: its class, and the probability that the run gives it."""

    run: str
    predicted: str
    probability: float
    is_right: bool


@dataclass(frozen=True)
class Dispute:
    """An image on which runs disagree. ``right``: the letters of the runs that name its label."""

    image: Markup | None
    name: str
    label: str
    answers: tuple[Answer, ...]
    right: str


@dataclass(frozen=True)
class Group:
    """Disputes of one kind: the surest as cards, the next ones as a list, of ``total`` in all."""

    title: str
    total: int
    cards: tuple[Dispute, ...]
    listed: tuple[Dispute, ...]


def disputes(answers: Answers, album: Album, letters: str) -> list[Group]:
    """The disputes of runs. Of two runs they are in groups: only one is right, or both are wrong.

    Args:
        album: receives the images of the cards, as far as it has room.
        letters: one per run.
    """
    sureness = answers.sureness()
    disputed = np.flatnonzero(answers.disputed)
    ordered = disputed[np.lexsort((disputed, -sureness[disputed]))]
    right = answers.right[:, ordered]
    if len(letters) == 2:
        first, second = letters[0], letters[1]
        kinds = {
            f"Only {second} is right": ordered[~right[0] & right[1]],
            f"Only {first} is right": ordered[right[0] & ~right[1]],
            "Both are wrong, each in its own way": ordered[~right[0] & ~right[1]],
        }
    else:
        kinds = {
            "Some are right": ordered[right.any(axis=0)],
            "All are wrong, in different ways": ordered[~right.any(axis=0)],
        }
    kinds = {title: images for title, images in kinds.items() if len(images)}
    room = limits.DISPUTES
    groups = []
    for number, (title, images) in enumerate(kinds.items()):
        count = min(len(images), room // (len(kinds) - number))
        room -= count
        rest = images[count : count + limits.DISPUTES_LISTED]
        groups.append(
            Group(
                title,
                len(images),
                tuple(_disputes(answers, images[:count], letters, album)),
                tuple(_disputes(answers, rest, letters, None)),
            )
        )
    return groups


def _disputes(
    answers: Answers, images: Iterable[np.int64], letters: str, album: Album | None
) -> Iterable[Dispute]:
    for image in map(int, images):
        name, label = answers.names[image], answers.classes[int(answers.targets[image])]
        shown = None if album is None else answers.shown(album, image)
        given = tuple(
            Answer(letter, answers.classes[int(predicted)], float(confidence), bool(is_right))
            for letter, predicted, confidence, is_right in zip(
                letters,
                answers.predicted[:, image],
                answers.confidence[:, image],
                answers.right[:, image],
                strict=True,
            )
        )
        yield Dispute(
            None if shown is None else shown.tag(printable(f"{name}, labelled {label}")),
            name,
            label,
            given,
            "".join(each.run for each in given if each.is_right),
        )
