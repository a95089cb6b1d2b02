"""Names from outside cannot disturb displayed text: control characters are escaped."""

import json
import unicodedata
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import plain, printable
from finetune.recipe.load import dump_recipe, parse_recipe

anything = st.text(st.characters() | st.sampled_from("\x1b\x07\x7f\x9b\r\n\t\u202e\u2028\udcff"), max_size=12)


@given(anything)
def test_control_characters_are_escaped_and_lines_stay(text: str) -> None:
    shown = plain(text)
    assert not [each for each in shown if unicodedata.category(each) in ("Cc", "Cs") and each not in "\n\t"]
    assert shown.count("\n") == text.count("\n")
    assert plain(shown) == shown
    shown.encode()
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@given(anything)
def test_escaping_does_not_change_json(text: str) -> None:
    assert json.loads(plain(json.dumps(text))) == text


@pytest.mark.parametrize("name", ["caf\u00e9 \U0001f355.png", "\u202f3.45 PM.png", "\u732b\u200d.png"])
def test_names_of_all_languages_are_unchanged(name: str) -> None:
    assert plain(name) == name


@pytest.mark.parametrize("source", ["a\x1b[31m", "\x7f", "a\u202eb", "\x85\x9b"])
def test_a_displayed_recipe_loads_back_equal(source: str) -> None:
    text = f"data: {{source: {json.dumps(source)}}}\nmodel: {{backbone: resnet18}}\n"
    shown: Any = yaml.safe_load(plain(dump_recipe(parse_recipe(text, "recipe.yaml"))))
    assert shown["data"]["source"] == source
