"""Text in columns on a screen whose letters are not all as wide: aligned, shortened, written downwards."""

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import takewhile, zip_longest

from rich.cells import cell_len

GAP = "  "
CUT = "…"
# What joins the character before it into one sign, beside combining marks: skin tones of emoji.
TONES = range(0x1F3FB, 0x1F400)


def padded(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in ``width`` cells of the screen; wide letters (CJK, emoji) take two, combining marks none."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def in_columns(rows: Sequence[Sequence[str]], *, text: int) -> str:
    """Rows in aligned columns: the first ``text`` of them to the left, the others, numbers, to the right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        GAP.join(
            padded(cell, width, right=place >= text)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def shortened(names: Sequence[str], width: int) -> list[str] | None:
    """Names of at most ``width`` cells, no two of them alike; None where no way of cutting does that.

    Names that fit stay whole. All others are cut in the same way: at the end, between or at the start; at
    both ends where they differ in the middle alone.
    """
    if max(map(cell_len, names)) <= width:
        return list(names)
    signs = [_signs(name) for name in names]
    room = width - cell_len(CUT)
    for tail in range(room + 1):
        cut = [
            name if cell_len(name) <= width else _cut(each, room - tail, tail)
            for name, each in zip(names, signs, strict=True)
        ]
        if len(set(cut)) == len(names):
            return cut
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*signs, strict=False))))
    middle = [
        name if cell_len(name) <= width else CUT + _cut(each[shared:], room - cell_len(CUT), 0)
        for name, each in zip(names, signs, strict=True)
    ]
    return middle if room > 1 and len(set(middle)) == len(names) else None


def downwards(heads: Sequence[str]) -> Iterator[list[str]]:
    """The lines, top first, of heads that are written from top to bottom and end on the last line."""
    columns = [_signs(head)[::-1] for head in heads]
    yield from [list(line) for line in zip_longest(*columns, fillvalue="")][::-1]


def height(head: str) -> int:
    """How many lines :func:`downwards` writes for it."""
    return len(_signs(head))


def _cut(signs: Sequence[str], front: int, back: int) -> str:
    """As many signs of the front and of the back as ``front`` and ``back`` cells hold."""
    tail = _fitting(signs[::-1], back)[::-1]
    return "".join(_fitting(signs, front)) + CUT + "".join(tail)


def _fitting(signs: Sequence[str], room: int) -> list[str]:
    kept = []
    for sign in signs:
        room -= cell_len(sign)
        if room < 0:
            break
        kept.append(sign)
    return kept


def _signs(text: str) -> list[str]:
    """``text`` cut where a screen can cut it: never between a letter and its marks."""
    signs: list[str] = []
    for char in text:
        if signs and (unicodedata.category(char).startswith("M") or ord(char) in TONES):
            signs[-1] += char
        else:
            signs.append(char)
    return signs
