"""Write CSV tables that are safe to open: no cell runs as a formula or controls a terminal."""

import csv
from collections.abc import Iterable
from typing import Protocol

from finetune.errors import plain

# A spreadsheet runs a cell that starts with one of these as a formula; some accept full-width forms too.
_SIGNS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_QUOTE = "'"


class Text(Protocol):
    """A stream that takes text."""

    def write(self, text: str, /) -> object: ...


class CsvTable:
    """Writes rows of a CSV table to a stream.

    Args:
        safe: put an apostrophe before cells that a spreadsheet would run as a formula, and write control
            characters as escapes such as ``\\x1b``. If False, write every cell unchanged.
    """

    def __init__(self, stream: Text, *, safe: bool = True) -> None:
        self._csv = csv.writer(stream)
        self._safe = safe

    def row(self, cells: Iterable[object]) -> None:
        self._csv.writerow([guarded(each) if self._safe else each for each in cells])


def guarded(cell: object) -> object:
    """``cell`` as a safe table writes it. Numbers, also those written as text, stay unchanged."""
    if not isinstance(cell, str):
        return cell
    text = plain(cell)
    return _QUOTE + text if _is_formula(text) else text


def unguarded(cell: str) -> str:
    """Undo :func:`guarded`: remove the apostrophe that it added."""
    return cell[1:] if cell.startswith(_QUOTE) and _is_formula(cell[1:]) else cell


def as_read_back(text: str) -> str:
    """What reading a safe table returns for ``text``: control and undecodable characters are escapes."""
    return unguarded(str(guarded(text)))


def _is_formula(text: str) -> bool:
    bare = text.lstrip(_QUOTE)
    if bare[:1] not in _SIGNS:
        return False
    # A cell that has an apostrophe already gets a second one, so that `unguarded` leaves the first.
    return bare != text or not _is_number(text)


def _is_number(text: str) -> bool:
    """Whether a spreadsheet reads ``text`` as a number. It does not read ``-inf`` as one."""
    if not text[-1:].isdecimal() or not text.isascii() or "_" in text or text != text.strip():
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
