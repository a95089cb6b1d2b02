"""A safe table runs no formula in a spreadsheet, and reading it gives the original cells."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.disk.csv_table import CsvTable, guarded, unguarded
from finetune.errors import plain

LEADING = "=+-@\t\n\r\uff1d\uff0b\uff0d\uff20"
odd = st.text(st.sampled_from(LEADING + "'a5.;,\"\x1b\x07\u202e\udcff"), max_size=6) | st.text(max_size=6)


def written(*rows: list[object], safe: bool = True) -> list[list[str]]:
    stream = io.StringIO(newline="")
    table = CsvTable(stream, safe=safe)
    for row in rows:
        table.row(row)
    return list(csv.reader(io.StringIO(stream.getvalue(), newline="")))


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\uff1d1", "-x.png"]
)
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert written([cell]) == [[f"'{cell}"]]
    assert written([cell], safe=False) == [[cell]]


@pytest.mark.parametrize(
    "cell", [-1, -0.5, "-1", "+0.25", "-1e-05", "1e-05", "plain.jpg", "a=b", "", "'quoted'"]
)
def test_numbers_and_plain_names_stay_unchanged(cell: object) -> None:
    assert written([cell, "more"]) == [[str(cell), "more"]]


def test_control_characters_become_escapes() -> None:
    assert written(["a\x1b[31m\x07\u202e\udcff.png", "one\ntwo", "\u202f caf\u00e9 \u200d"]) == [
        ["a\\x1b[31m\\x07\\u202e\\udcff.png", "one\ntwo", "\u202f caf\u00e9 \u200d"]
    ]


@given(odd)
def test_reading_a_cell_undoes_the_guard(cell: str) -> None:
    assert unguarded(str(guarded(cell))) == plain(cell)


@given(odd)
def test_only_numbers_begin_like_a_formula(cell: str) -> None:
    held = str(guarded(cell))
    if held[:1] in tuple(LEADING):
        assert float(held) is not None
    assert "\r" not in held
