"""CSV tables that people open: names in them neither compute in a spreadsheet nor steer a terminal."""

import csv
from collections.abc import Iterable
from typing import Protocol

from finetune.errors import plain

# By these a spreadsheet takes a cell for a formula; some take the wide forms of the signs too.
_SIGNS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_QUOTE = "'"


class Text(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> object: ...


class CsvTable:
    """A CSV table in the making.

    Args:
        safe: what a spreadsheet would take for a formula gets an apostrophe in front, and control characters
            become escapes such as ``\\x1b``. Otherwise each cell is as it is.
    """

    def __init__(self, stream: Text, *, safe: bool = True) -> None:
        self._csv = csv.writer(stream)
        self._safe = safe

    def row(self, cells: Iterable[object]) -> None:
        self._csv.writerow([guarded(each) if self._safe else each for each in cells])


def guarded(cell: object) -> object:
    """``cell`` as a safe table holds it; a number, also one in digits, is as it was."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return _QUOTE + text if _computes(text) else text


def unguarded(cell: str) -> str:
    """A cell without the apostrophe that :func:`guarded` put in front."""
    return cell[1:] if cell.startswith(_QUOTE) and _computes(cell[1:]) else cell


def _computes(text: str) -> bool:
    bare = text.lstrip(_QUOTE)
    if bare[:1] not in _SIGNS:
        return False
    # One that has an apostrophe of its own gets another: reading back must not take its own away.
    return bare != text or not _is_number(text)


def _is_number(text: str) -> bool:
    """Whether a spreadsheet reads a number: in digits, which ``-inf`` is not."""
    if not text[-1:].isdecimal() or not text.isascii() or "_" in text or text != text.strip():
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
