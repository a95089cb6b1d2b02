"""Format a confusion matrix for a terminal of any width.

Column heads are class names side by side, abbreviated if they must be. If they still do not fit, they are
written vertically. If that does not fit either, the largest errors are listed instead.
"""

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from finetune.errors import printable
from finetune.evaluation.columns import GAP, abbreviate, align_columns, stack

# More classes fit no terminal.
LARGEST_MATRIX = 20
MOST_CONFUSED = 10
WHOLE_MATRIX = "the whole matrix: --json, key confusion"
CORNER = "true \\ predicted"
# The least width of an abbreviated head in cells, and the greatest height of a vertical head in lines.
NARROWEST = 5
TALLEST = 16
# Widths of abbreviated row names, tried if whole names leave no room for numbers.
ROW_WIDTHS = (24, 16, 10)
# Heads of columns whose vertical names would be equal when abbreviated. Digits would look like counts.
MARKS = (string.ascii_lowercase, "αβγδεζηθικλμνξοπρστυφχψω")


def format_confusion(counts: NDArray[np.int64], classes: Sequence[str], width: int | None = None) -> str:
    """Format the matrix, or its largest errors if it does not fit into ``width`` cells (None: no limit).

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
        if (heads := _horizontal_heads(cells, names, room)) is not None:
            return align_columns([[CORNER, *heads], *_with_names(rows, cells)], text=1)
        if (found := _with_vertical_heads(cells, names, rows, room)) is not None:
            return found
    return None


def _with_names(rows: list[str], cells: list[list[str]]) -> list[list[str]]:
    return [[name, *line] for name, line in zip(rows, cells, strict=True)]


def _row_names(names: list[str], width: int | None) -> list[list[str]]:
    """Whole names, then shorter and shorter ones."""
    cut = [] if width is None else [abbreviate(names, cells) for cells in ROW_WIDTHS]
    return [names, *(each for each in cut if each is not None and each != names)]


def _horizontal_heads(cells: list[list[str]], names: list[str], room: int | None) -> list[str] | None:
    """The longest heads with which all columns fit into ``room`` cells."""
    if room is None:
        return names
    longest = max(map(cell_len, names))
    for most in range(min(longest, max(room, NARROWEST)), min(NARROWEST, longest) - 1, -1):
        heads = abbreviate(names, most)
        if heads is None:
            return None
        if _width(cells, list(map(cell_len, heads))) <= room:
            return heads
    return None


def _with_vertical_heads(
    cells: list[list[str]], names: list[str], rows: list[str], room: int | None
) -> str | None:
    heads, marked_rows = names, rows
    if len(stack(names)) > TALLEST:
        short = abbreviate(names, TALLEST)
        if short is None:
            marks = next((each for each in MARKS if not set(each) & set(names)), MARKS[0])
            heads = list(marks[: len(names)])
            marked_rows = [f"{mark} {row}" for mark, row in zip(heads, rows, strict=True)]
        else:
            heads = short
    lines = stack(heads)
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(heads))]
    extra = max(map(cell_len, marked_rows)) - max(map(cell_len, [CORNER, *rows]))
    if room is not None and _width(cells, widths) + max(extra, 0) > room:
        return None
    table = [["", *line] for line in lines[:-1]]
    return align_columns([*table, [CORNER, *lines[-1]], *_with_names(marked_rows, cells)], text=1)


def _width(cells: list[list[str]], heads: list[int]) -> int:
    """The width of all columns under heads of these widths, gaps included."""
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
    return f"most confused ({WHOLE_MATRIX})\n{align_columns(rows, text=2)}"
