"""Patterns match as in Python's `re`, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.data.holdout import patterns
from finetune.data.holdout.patterns import match_groups
from finetune.errors import DataError


def test_the_text_of_the_capture_group_is_returned() -> None:
    names = ["scene1_a.jpg", "x_scene22_b.jpg", "none.jpg", "é\udcff\n.jpg", ""]
    assert match_groups("(scene[0-9]+)_", names) == ["scene1", "scene22", None, None, None]
    assert match_groups("(.)\n", names) == [None, None, None, "\udcff", None]
    assert match_groups("(a)|b", ["b", "a"]) == [None, "a"]
    assert match_groups("(a)", []) == []


@settings(max_examples=10, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=20))
def test_patterns_match_as_in_python(names: list[str]) -> None:
    compiled = re.compile(r"(\w+).?$")
    expected = [None if (found := compiled.search(name)) is None else found[1] for name in names]
    assert match_groups(compiled.pattern, names) == expected


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"((?:a|a)*)$", r"^((?:\w+\s?)*)$"])
def test_a_pattern_that_takes_too_long_is_an_error(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_MATCHER", patterns._MATCHER.replace(f"({patterns.SECONDS},", "(0.5,"))
    began = time.monotonic()
    with pytest.raises(DataError, match=r"^a{40}!: matching data\.group_by .* can take forever"):
        match_groups(pattern, ["a", "a" * 40 + "!"])
    assert time.monotonic() - began < 30
