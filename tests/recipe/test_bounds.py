"""Every number in a recipe has bounds; values beyond them are errors at their place."""

import contextlib
import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.load import parse_recipe
from recipe_numbers import Number, numbers

ALL = list(numbers())
LEAST = "data: {source: digits}\nmodel: {backbone: resnet18}\n"


def read(settings: dict[str, Any]) -> None:
    flags = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    parse_recipe(LEAST, "recipe.yaml", flags)


def test_every_number_is_found() -> None:
    keys = {each.key for each in ALL}
    assert {"seed", "data.fold.of", "train.augment.scale", "train.phases.0.lr", "model.head.at"} <= keys
    assert {"model.weights.min_share", "train.augment.color_jitter.hue", "model.head.reuse.any"} <= keys
    assert len(ALL) > 50


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.key)
def test_every_number_is_bounded_on_both_sides(each: Number) -> None:
    # float32 represents every fraction and its square, and JSON readers represent every count.
    assert each.high <= (10**12 if each.whole else 1e12)
    assert each.low == 0 or abs(each.low) >= (1 if each.whole else 1e-12)


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.key)
def test_bounds_are_accepted_and_values_beyond_are_refused(each: Number) -> None:
    for value in each.ends:
        read(each.recipe(value))
    for value in each.beyond:
        with pytest.raises(RecipeError, match="must be") as caught:
            read(each.recipe(value))
        assert any(each.key.split(".")[-1] in problem or each.pair for problem in caught.value.problems)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(ALL),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**19), 10**19),
)
def test_any_number_is_accepted_or_refused_at_its_line(each: Number, value: float) -> None:
    if each.whole and not isinstance(value, int):
        return
    fits = (each.low <= value <= each.high) or (each.zero and value == 0)
    settings = {**each.recipe(each.low), each.key: [value, value] if each.pair else value}
    tree: dict[str, Any] = {"data": {"source": "digits"}, "model": {"backbone": "resnet18"}}
    for key, written in settings.items():
        put(tree, key.split("."), written)
    text = yaml.safe_dump(tree, sort_keys=False)
    if fits:
        # A number that is valid alone may conflict with another key.
        with contextlib.suppress(RecipeError):
            parse_recipe(text, "recipe.yaml")
        return
    with pytest.raises(RecipeError, match=r"^recipe\.yaml:\d+:\d+: ") as caught:
        parse_recipe(text, "recipe.yaml")
    line = text.splitlines()[int(caught.value.problems[0].split(":")[1]) - 1]
    assert each.key.split(".")[-1] in line or line.strip().startswith("- ")


def put(tree: Any, path: list[str], value: Any) -> None:
    for at, part in enumerate(path):
        last = at == len(path) - 1
        if part.isdigit():
            if not tree:
                tree.append({})
            tree = tree[0]
        elif last:
            tree[part] = value
        else:
            below: Any = [] if path[at + 1].isdigit() else {}
            if not isinstance(tree.get(part), dict | list):
                tree[part] = below
            tree = tree[part]


@pytest.mark.parametrize("limit", ["9" * 400 + "TB", "1000001TB", "1" * 30 + "KB"])
def test_a_size_is_bounded_too(limit: str) -> None:
    with pytest.raises(RecipeError, match=r"cache\.limit: must be at most 1,000,000TB"):
        read({"cache.limit": limit})


def test_a_size_with_many_decimals_is_accepted() -> None:
    recipe = parse_recipe(LEAST, "recipe.yaml", [f"cache.limit=0.{'0' * 400}1KB"])
    assert recipe.cache.limit_bytes == 0
    assert math.isfinite(recipe.cache.limit_bytes)
