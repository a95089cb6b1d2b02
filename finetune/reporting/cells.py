"""The images in the cells of the confusion matrix."""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from finetune.errors import printable
from finetune.page.album import Shown
from finetune.reporting.cases import Predictions
from finetune.reporting.limits import IMAGES_OF_CELL, IMAGES_OF_DIAGONAL

# The thumbnail of a row; None if there is none.
ShownOf = Callable[[int], Shown | None]


def rows_of_cells(predictions: Predictions) -> Iterator[int]:
    """The rows that cells list, mistakes first, in the order in which they get a thumbnail."""
    cells = predictions.cells()
    wrong = [rows for (true, predicted), rows in cells.items() if true != predicted]
    right = [rows for (true, predicted), rows in cells.items() if true == predicted]
    for group, most in ((wrong, IMAGES_OF_CELL), (right, IMAGES_OF_DIAGONAL)):
        # One of each cell, then the second of each, so that no cell takes all the room.
        for rows in zip_longest(*(each[:most] for each in group)):
            yield from (row for row in rows if row is not None)


def cell_contents(
    predictions: Predictions, of_row: ShownOf, name_of: Callable[[int], str]
) -> dict[str, list[list[Any]]]:
    """What the cells of the matrix open, for the page's script.

    Args:
        name_of: the name of a row's image, as the page shows it.

    Returns:
        By ``true,predicted``: for each image its number in the album or null, its name, and the probability
        of the predicted class. Images with a thumbnail come first.
    """
    found: dict[str, list[list[Any]]] = {}
    for (true, predicted), rows in predictions.cells().items():
        most = IMAGES_OF_DIAGONAL if true == predicted else IMAGES_OF_CELL
        shown: Mapping[int, Shown | None] = {row: of_row(row) for row in rows[:most]}
        ordered = sorted(shown, key=lambda row: shown[row] is None)
        found[f"{true},{predicted}"] = [
            [
                None if (image := shown[row]) is None else image.number,
                printable(name_of(row)),
                round(float(predictions.confidence[row]), 4),
            ]
            for row in ordered
        ]
    return found
