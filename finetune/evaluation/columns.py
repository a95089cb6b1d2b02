"""Lay out text in columns of a terminal: align, abbreviate and stack names of wide and narrow characters.

Widths are in terminal cells. Wide characters (CJK, emoji) take two cells, combining marks none.
"""

import unicodedata
from collections.abc import Sequence
from itertools import takewhile, zip_longest

from rich.cells import cell_len

GAP = "  "
ELLIPSIS = "…"
# Skin tones of emoji. Like combining marks, they belong to the character before them.
TONES = range(0x1F3FB, 0x1F400)


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Pad ``text`` to ``width`` cells; ``right`` aligns it to the right."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def align_columns(rows: Sequence[Sequence[str]], *, text: int) -> str:
    """Join rows into aligned columns: the first ``text`` columns to the left, the others to the right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        GAP.join(
            pad(cell, width, right=place >= text)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def abbreviate(names: Sequence[str], width: int) -> list[str] | None:
    """Abbreviate names to ``width`` cells so that all stay different; None if that is impossible.

    Names that fit stay unchanged. All others are cut at the same place: at the end, in the middle or at the
    start; or at both ends, if they differ only in the middle.
    """
    if max(map(cell_len, names)) <= width:
        return list(names)
    letters = [_letters(name) for name in names]
    room = width - cell_len(ELLIPSIS)
    for tail in range(room + 1):
        cut = [
            name if cell_len(name) <= width else _cut(each, room - tail, tail)
            for name, each in zip(names, letters, strict=True)
        ]
        if len(set(cut)) == len(names):
            return cut
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*letters, strict=False))))
    middle = [
        name if cell_len(name) <= width else ELLIPSIS + _cut(each[shared:], room - cell_len(ELLIPSIS), 0)
        for name, each in zip(names, letters, strict=True)
    ]
    return middle if room > 1 and len(set(middle)) == len(names) else None


def stack(heads: Sequence[str]) -> list[list[str]]:
    """Write column heads vertically: the letters of each line, top first. Heads end at the bottom."""
    columns = [_letters(head)[::-1] for head in heads]
    return [list(line) for line in zip_longest(*columns, fillvalue="")][::-1]


def _cut(letters: Sequence[str], front: int, back: int) -> str:
    """The letters that fit into ``front`` cells, an ellipsis, and the last that fit into ``back`` cells."""
    tail = _fitting(letters[::-1], back)[::-1]
    return "".join(_fitting(letters, front)) + ELLIPSIS + "".join(tail)


def _fitting(letters: Sequence[str], room: int) -> list[str]:
    fitting = []
    for letter in letters:
        room -= cell_len(letter)
        if room < 0:
            break
        fitting.append(letter)
    return fitting


def _letters(text: str) -> list[str]:
    """Split ``text`` into letters, each with its combining marks."""
    letters: list[str] = []
    for char in text:
        if letters and (unicodedata.category(char).startswith("M") or ord(char) in TONES):
            letters[-1] += char
        else:
            letters.append(char)
    return letters
