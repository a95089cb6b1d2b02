"""The confusion matrix names its columns, is aligned and fits the width of the terminal."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from finetune.evaluation.columns import abbreviate, align_columns, stack
from finetune.evaluation.matrix import CORNER, LARGEST_MATRIX, format_confusion

TRASH = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
LONG = [f"a_long_beginning_that_all_share_{number:02}_and_an_end_that_they_share_too" for number in range(9)]
WIDE = ["犬の写真", "ねこ", "e\u0301clair", "🌭 hot dog", "Ωmega", "👍🏽"]


def counts(classes: int) -> np.ndarray:
    return np.arange(classes * classes, dtype=np.int64).reshape(classes, classes) % 7


def head_and_body(text: str) -> tuple[list[str], list[str]]:
    lines = text.splitlines()
    corner = next(place for place, line in enumerate(lines) if CORNER in line)
    return lines[: corner + 1], lines[corner + 1 :]


@pytest.mark.parametrize(
    "names",
    [[str(number) for number in range(10)], ["2001", "1999", "7"], TRASH, ["0", "one", "1"], ["1", "0"]],
    ids=" ".join,
)
def test_column_heads_are_class_names(names: list[str]) -> None:
    text = format_confusion(counts(len(names)), names, 80)
    head, body = head_and_body(text)
    assert head[0].removeprefix(CORNER).split() == names
    for name, line, row in zip(names, body, counts(len(names)), strict=True):
        assert line.split() == [name, *(str(count) if count else "." for count in row)]


@pytest.mark.parametrize("names", [TRASH, LONG, WIDE, [f"character{i:02}" for i in range(20)]], ids=len)
@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100, 120, 200])
def test_a_matrix_fits_the_terminal_and_its_columns_are_aligned(names: list[str], width: int) -> None:
    text = format_confusion(counts(len(names)), names, width)
    if CORNER not in text:
        assert "--json" in text
        return
    head, body = head_and_body(text)
    assert all(cell_len(line) <= width for line in [*head, *body])
    assert len({cell_len(line) for line in [*body, head[-1]]}) == 1
    assert len(body) == len(names)
    assert {char for line in head for char in line if char.isdigit()} <= set("".join(names))


def test_names_that_do_not_fit_side_by_side_are_vertical() -> None:
    head, _ = head_and_body(format_confusion(counts(6), TRASH, 50))
    places = [place for place, char in enumerate(head[-1]) if place >= len(CORNER) and char != " "]
    read = ["".join(line.ljust(50)[place] for line in head).strip() for place in places]
    assert read == TRASH


def test_names_that_are_equal_when_abbreviated_get_letters_at_row_and_column() -> None:
    names = [f"{first}{'middle of a name ' * 5}{last}" for first in "xy" for last in "xy"]
    names = [f"beginning {name} end of it and so on" for name in names]
    head, body = head_and_body(format_confusion(counts(4), names, 180))
    assert head[-1].removeprefix(CORNER).split() == ["a", "b", "c", "d"]
    assert [line.split(" ", 1)[0] for line in body] == ["a", "b", "c", "d"]
    with_letter = ["a", *names[1:]]
    head, _ = head_and_body(format_confusion(counts(4), with_letter, 180))
    assert head[-1].removeprefix(CORNER).split() == ["α", "β", "γ", "δ"]


@pytest.mark.parametrize("classes", [LARGEST_MATRIX + 1, 300])
def test_many_classes_list_the_largest_errors_and_name_the_option_for_the_matrix(classes: int) -> None:
    errors = np.zeros((classes, classes), dtype=np.int64)
    errors[3, 7], errors[5, 2], errors[4, 4] = 12, 3, 90
    lines = format_confusion(errors, [str(number) for number in range(classes)], 80).splitlines()
    assert "--json" in lines[0]
    assert [line.split() for line in lines[2:]] == [["3", "7", "12"], ["5", "2", "3"]]


def test_without_a_limit_names_are_whole() -> None:
    head, _ = head_and_body(format_confusion(counts(len(LONG)), LONG))
    assert head[0].removeprefix(CORNER).split() == LONG


letters = st.sampled_from(["a", "b", "7", "犬", "é", "e\u0301", "🌭", "-", "👍🏽"])
words = st.lists(letters, min_size=1, max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(words, min_size=1, max_size=6, unique=True), st.integers(1, 14))
def test_abbreviated_names_fit_and_differ(names: list[str], width: int) -> None:
    found = abbreviate(names, width)
    if found is None:
        assert max(map(cell_len, names)) > width
        return
    assert len(set(found)) == len(names)
    assert all(cell_len(name) <= width for name in found)
    assert all(cut == name for name, cut in zip(names, found, strict=True) if cell_len(name) <= width)


@settings(max_examples=100, deadline=None)
@given(st.lists(words, min_size=1, max_size=5))
def test_vertical_heads_read_as_the_names(names: list[str]) -> None:
    lines = stack(names)
    assert all(lines[-1])  # heads end on the last line
    assert ["".join(column) for column in zip(*lines, strict=True)] == names


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=5))
def test_columns_are_aligned(rows: list[tuple[str, str, str]]) -> None:
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for line, (first, second, third) in zip(align_columns(rows, text=2).splitlines(), rows, strict=True):
        assert line.startswith(first)
        assert cell_len(line) == sum(widths) + 4
        assert line.endswith(third)
        before = line[: len(line) - len(third)].rstrip()
        assert before == (first + " " * (widths[0] + 2 - cell_len(first)) + second).rstrip()


def test_every_width_works() -> None:
    for width, names in itertools.product(range(1, 60, 3), (TRASH, LONG, WIDE, ["a", "b"])):
        assert format_confusion(counts(len(names)), names, width)
