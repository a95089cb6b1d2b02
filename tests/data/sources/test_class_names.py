"""Equivalent class names are an error; similar names give a note."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from finetune.data.sources.names.class_names import equivalent_names, is_class_name, normalized, similar_names

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "Nd", "Zs")), min_size=1, max_size=12).filter(
    is_class_name
)
CHANGES = {
    "upper": str.upper,
    "title": str.title,
    "swapped": str.swapcase,
    "space before": lambda name: " " + name,
    "space after": lambda name: name + " ",
    "no-break space": lambda name: name + "\u00a0",
    "zero width": lambda name: name[:1] + "\u200b" + name[1:],
    "NFD": lambda name: unicodedata.normalize("NFD", name),
    "NFKC": lambda name: unicodedata.normalize("NFKC", name),
    "full width": lambda name: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name),
}


@given(NAMES, st.sampled_from(sorted(CHANGES)))
def test_equivalent_names(name: str, change: str) -> None:
    changed = CHANGES[change](name)
    # Upper case maps some different letters to the same one.
    assume(change not in ("upper", "title", "swapped") or changed.lower() == name.lower())
    assert normalized(changed) == normalized(name)
    assert equivalent_names([name, changed]) == ([(changed, name)] if changed != name else [])


@given(st.lists(NAMES, unique_by=normalized, max_size=8))
def test_different_names_are_not_equivalent(names: list[str]) -> None:
    assert equivalent_names(names) == []


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("cat", "cats", "singular and plural"), ("box", "boxes", "singular and plural"),
        ("berry", "Berries", "singular and plural"), ("tomato", "tomatoes", "singular and plural"),
        ("hot_dog", "hotdog", "separators"), ("hot dog", "hot-dog", "separators"),
        ("café", "cafe", "accents"), ("labrador", "labradr", "a letter"), ("apple", "appel", "a letter"),
        ("strawbery", "strawberry", "a letter"), ("chihuahua", "chihuehua", "a letter"),
    ],
)  # fmt: skip
def test_similar_names(one: str, other: str, how: str) -> None:
    ((first, second, said),) = similar_names({one: 30, other: 30})
    assert {first, second} == {one, other}
    assert how in said


@pytest.mark.parametrize(
    "names",
    [
        ("house", "mouse", "horse"), ("class_1", "class_2"), ("character10", "character11"), ("boat", "coat"),
        ("glass", "grass"), ("healthy", "unhealthy"), ("male", "female"), ("bus", "bush"), ("0", "1"),
        ("left", "lift"), ("bear", "beer"), ("shell", "hell"),
    ],
)  # fmt: skip
def test_different_words_are_not_similar(names: tuple[str, ...]) -> None:
    assert similar_names(dict.fromkeys(names, 30)) == []


def test_a_rare_class_counts_as_a_misspelling_sooner() -> None:
    assert similar_names({"mouse": 30, "mause": 30}) == []
    assert len(similar_names({"mouse": 30, "mause": 1})) == 1
    assert len(similar_names({"hotdog": 22, "hotdgo": 1, "pizza": 20})) == 1


def test_equivalent_names_are_not_similar_names() -> None:
    assert similar_names({"Cat": 3, "cat": 3, "dog": 3}) == []
