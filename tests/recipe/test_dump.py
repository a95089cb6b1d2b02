"""Dumped recipes contain every key and load back to the same recipe."""

import json
import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.recipe.catalog import backbones
from finetune.recipe.load import dump_recipe, parse_recipe
from finetune.recipe.schema import Recipe

# Texts that YAML 1.1, YAML 1.2 or a plain scalar would read as another value.
DOUBTFUL = [
    *(
        "no",
        "yes",
        "true",
        "null",
        "~",
        "1e-3",
        ".5e3",
        "010",
        ".inf",
        "0x1F",
        "1:30",
        "2024-01-31",
        "=",
        "<<",
    ),
    *("'", '"', "@x", "a: b", "a #b", "- a", " a ", "a\nb", "~/pics", "../a", "C:\\pics", "é"),
    *("\x85", "\u2028", "\ufeff"),
]
TEXT = st.sampled_from(DOUBTFUL) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20
)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


def section(**optional: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=optional)


AUTO = st.just("auto")
SHARE = number(0, 0.999)
RATE = number(1e-6, 100) | AUTO
DECAY = st.just(0.0) | number(1e-12, 100)
PAIR = st.tuples(number(0.01, 1), number(0.01, 1)).map(sorted)
PHASE = section(
    freeze=st.integers(0, 99) | TEXT,
    epochs=st.integers(2, 99),
    lr=RATE,
    head_lr_mult=RATE,
    optimizer=st.sampled_from(["sgd", "adamw", None]),
    weight_decay=st.none() | DECAY,
    schedule=st.sampled_from(["cosine", "step", "constant", None]),
    warmup_epochs=st.none() | number(1e-6, 1),
)
RECIPES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "data": st.builds(
            lambda source, rest: {"source": source, **rest},
            TEXT,
            section(image_size=st.integers(8, 4096) | AUTO, val_fraction=number(0.01, 0.5), workers=AUTO),
        ),
        "model": st.builds(
            lambda backbone, rest: {"backbone": backbone, **rest},
            st.sampled_from(sorted(backbones())),
            section(
                weights=TEXT.filter(lambda text: not text.startswith("IMAGENET1K_")),
                head=section(dropout=SHARE),
                batchnorm_momentum=number(1e-6, 1) | st.sampled_from(["auto", "keep"]),
            ),
        ),
        "train": section(
            batch_size=st.integers(1, 10**6),
            weight_decay=DECAY | AUTO,
            ema=st.none() | number(1e-6, 0.999),
            augment=section(
                flip=st.booleans(),
                scale=PAIR,
                ratio=PAIR,
                color_jitter=st.none() | section(hue=number(0, 0.5)),
            ),
            phases=st.lists(PHASE, min_size=1, max_size=3),
        ),
    }
)


@settings(max_examples=100, deadline=None)
@given(RECIPES)
def test_a_dumped_recipe_loads_back_equal(values: dict[str, object]) -> None:
    recipe = Recipe.model_validate_json(json.dumps(values))
    text = dump_recipe(recipe)
    assert parse_recipe(text, "r") == recipe
    assert parse_recipe(text.encode(), "r") == recipe
    # YAML 1.1 readers such as PyYAML read the same values: no float or text changes its type.
    assert yaml.safe_load(text) == recipe.model_dump(mode="json")


def test_every_key_is_written_in_the_order_of_the_schema(sound: str) -> None:
    recipe = parse_recipe(sound, "r")
    written = yaml.safe_load(dump_recipe(recipe))
    assert list(written) == list(Recipe.model_fields)
    assert list(written["train"]) == list(type(recipe.train).model_fields)
    assert [list(phase) for phase in written["train"]["phases"]] == [
        list(type(phase).model_fields) for phase in recipe.train.phases
    ]


def test_dumping_is_stable_and_readable(sound: str) -> None:
    text = dump_recipe(parse_recipe(sound.replace("1e-3", "1e-7"), "r"))
    assert dump_recipe(parse_recipe(text, "r")) == text
    assert "    scale: [0.5, 1.0]\n" in text
    assert "      lr: 1.0e-07\n" in text
    assert "  phases:\n    - freeze: backbone\n" in text
    assert re.search(r"^  source: photos$", text, re.MULTILINE)
    assert "!" not in text
    assert "&" not in text
