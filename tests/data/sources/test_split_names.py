"""Split names are recognised by whole words, in any spelling."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.sources.names.split_names import (
    GENERIC_WORDS,
    SPLIT_WORDS,
    name_words,
    parse_split_name,
    split_from_name,
)

WRITTEN = {"lower": str.lower, "upper": str.upper, "title": str.title}
# Words that say nothing of a split, and make none with what stands beside them.
OTHER_WORDS = ["seg", "hotdog", "shoes", "kaggle", "tubes", "vgg", "intel"]


def spelt(words: list[str], separator: str, how: str) -> str:
    return separator.join(WRITTEN[how](word) for word in words)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(SPLIT_WORDS)),
    st.lists(st.one_of(st.sampled_from(sorted(GENERIC_WORDS)), st.integers(0, 2030).map(str)), max_size=2),
    st.booleans(),
    st.sampled_from("_- .+"),
    st.sampled_from(sorted(WRITTEN)),
)
def test_split_words_with_generic_words_name_a_split(
    word: str, beside: list[str], first: bool, separator: str, how: str
) -> None:
    words = [word, *beside] if first else [*beside, word]
    assert split_from_name(spelt(words, separator, how)) == SPLIT_WORDS[word]


@given(
    st.sampled_from(sorted(SPLIT_WORDS)),
    st.sampled_from(["set", "data", "images", "Set", "DATA", "Images"]),
    st.booleans(),
)
def test_compounds_name_a_split(word: str, beside: str, title: bool) -> None:
    name = (word.title() if title else word) + beside
    assert split_from_name(name) == SPLIT_WORDS[word]


@given(
    st.sampled_from(sorted(SPLIT_WORDS)),
    st.lists(st.sampled_from(OTHER_WORDS), min_size=1, max_size=2),
    st.booleans(),
    st.sampled_from("_- "),
    st.sampled_from(sorted(WRITTEN)),
)
def test_other_words_are_reported_separately(
    word: str, others: list[str], first: bool, separator: str, how: str
) -> None:
    found = parse_split_name(spelt([word, *others] if first else [*others, word], separator, how))
    assert found is not None
    assert (found.split, found.other_words, found.plain) == (SPLIT_WORDS[word], tuple(others), False)


@given(
    st.sampled_from(sorted(SPLIT_WORDS)),
    st.text(string.ascii_lowercase, min_size=1, max_size=6),
    st.booleans(),
)
def test_a_split_word_inside_another_word_does_not_count(word: str, letters: str, first: bool) -> None:
    name = letters + word if first else word + letters
    if name_words(name) == (name,) and name not in SPLIT_WORDS:
        assert parse_split_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "contest",
        "valley",
        "latest",
        "trains",
        "trainer",
        "invalid",
        "untested",
        "device",
        "Teststrecke",
        "rest",
    ],
)
def test_words_that_contain_a_split_name(name: str) -> None:
    assert parse_split_name(name) is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_set", "train"), ("Train-Data", "train"), ("01_train", "train"), ("train2017", "train"),
        ("TrainImages", "train"), ("TRAINset", "train"), ("trainval", "train"), ("train_val", "train"),
        ("validation_data", "val"), ("dev", "val"), ("DevSet", "val"), ("held-out", "test"),
        ("Hold Out", "test"), ("holdout", "test"), ("testing", "test"), ("evaluation", "test"),
        ("ｔｒａｉｎ", "train"), ("Trainingsdaten", "train"),
    ],
)  # fmt: skip
def test_names_of_data_sets(name: str, split: str) -> None:
    assert split_from_name(name) == split


@pytest.mark.parametrize("name", ["train_test_split", "test-train", "val_test", "", "___", "123"])
def test_names_of_two_splits_or_none(name: str) -> None:
    assert parse_split_name(name) is None
