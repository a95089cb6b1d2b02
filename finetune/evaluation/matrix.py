"""A confusion matrix on the screen: class names at rows and columns, cut or written downwards to fit."""

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from finetune.errors import printable
from finetune.evaluation.columns import GAP, downwards, height, in_columns, shortened

# A larger matrix fits no screen; its largest entries are listed instead.
LARGEST_MATRIX = 20
MOST_CONFUSED = 10
WHOLE_MATRIX = "the whole matrix: --json, key confusion"
CORNER = "true \\ predicted"
# A head that is cut keeps so many cells at least; one that is written downwards has so many lines at most.
NARROWEST = 5
TALLEST = 16
# Cells that are left of a row's name where the whole name leaves no room for numbers.
ROW_WIDTHS = (24, 16, 10)
# Marks of columns whose names, cut short, would be alike. Digits are no marks: they would be read as counts.
MARKS = (string.ascii_lowercase, "αβγδεζηθικλμνξοπρστυφχψω")


def confusion(counts: NDArray[np.int64], classes: Sequence[str], width: int | None = None) -> str:
    """The matrix, or where it is too large for ``width`` cells (None: no limit) its largest errors.

    Args:
        counts: (C, C); rows are true classes, columns predicted ones.
    """
    names = [printable(name) for name in classes]
    whole = _matrix(counts, names, width) if len(names) <= LARGEST_MATRIX else None
    return _most_confused(counts, names) if whole is None else whole


def _matrix(counts: NDArray[np.int64], names: list[str], width: int | None) -> str | None:
    cells = [[str(count) if count else "." for count in row] for row in counts.tolist()]
    for rows in _row_names(names, width):
        room = None if width is None else width - max(map(cell_len, [CORNER, *rows]))
        if (heads := _across(cells, names, room)) is not None:
            return in_columns([[CORNER, *heads], *_beside(rows, cells)], text=1)
        if (found := _downwards(cells, names, rows, room)) is not None:
            return found
    return None


def _beside(rows: list[str], cells: list[list[str]]) -> list[list[str]]:
    return [[name, *line] for name, line in zip(rows, cells, strict=True)]


def _row_names(names: list[str], width: int | None) -> list[list[str]]:
    """Whole, and then shorter and shorter."""
    cut = [] if width is None else [shortened(names, cells) for cells in ROW_WIDTHS]
    return [names, *(each for each in cut if each is not None and each != names)]


def _across(cells: list[list[str]], names: list[str], room: int | None) -> list[str] | None:
    """Heads, whole or cut, with which all columns fit into ``room`` cells."""
    if room is None:
        return names
    longest = max(map(cell_len, names))
    for most in range(min(longest, max(room, NARROWEST)), min(NARROWEST, longest) - 1, -1):
        heads = shortened(names, most)
        if heads is None:
            return None
        if _needed(cells, list(map(cell_len, heads))) <= room:
            return heads
    return None


def _downwards(cells: list[list[str]], names: list[str], rows: list[str], room: int | None) -> str | None:
    heads, keyed = names, rows
    if max(map(height, names)) > TALLEST:
        short = shortened(names, TALLEST)
        if short is None:
            marks = next((each for each in MARKS if not set(each) & set(names)), MARKS[0])
            heads = list(marks[: len(names)])
            keyed = [f"{mark} {row}" for mark, row in zip(heads, rows, strict=True)]
        else:
            heads = short
    lines = list(downwards(heads))
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(heads))]
    extra = max(map(cell_len, keyed)) - max(map(cell_len, [CORNER, *rows]))
    if room is not None and _needed(cells, widths) + max(extra, 0) > room:
        return None
    table = [["", *line] for line in lines[:-1]]
    return in_columns([*table, [CORNER, *lines[-1]], *_beside(keyed, cells)], text=1)


def _needed(cells: list[list[str]], heads: list[int]) -> int:
    """Cells that columns under heads so wide take, gaps counted."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
    return sum(max(head, width) + len(GAP) for head, width in zip(heads, widths, strict=True))


def _most_confused(counts: NDArray[np.int64], names: list[str]) -> str:
    errors = counts * (1 - np.eye(len(names), dtype=np.int64))
    rows = [["true", "predicted", "images"]]
    for place in np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSED]:
        true, predicted = divmod(int(place), len(names))
        if errors[true, predicted]:
            rows.append([names[true], names[predicted], f"{errors[true, predicted]:,}"])
    if len(rows) == 1:
        return "no image is in the wrong class"
    return f"most confused ({WHOLE_MATRIX})\n{in_columns(rows, text=2)}"
