"""Writing recipes: every key, and the same recipe again when read."""

import json
import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.recipe.catalog import backbones
from finetune.recipe.load import dump_recipe, parse_recipe
from finetune.recipe.schema import Recipe

# What YAML 1.1, YAML 1.2 or a plain scalar would read as something else than the text.
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


def number(
    low: float, high: float, open_low: bool = False, open_high: bool = False
) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high)


def section(**optional: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=optional)


AUTO = st.just("auto")
POSITIVE = number(0, 1e300, open_low=True)
SHARE = number(0, 1, open_high=True)
RATE = POSITIVE | AUTO
PAIR = st.tuples(number(0, 1, open_low=True), number(0, 1, open_low=True)).map(sorted)
PHASE = section(
    freeze=st.integers(0, 99) | TEXT,
    epochs=st.integers(2, 99),
    lr=RATE,
    head_lr_mult=RATE,
    optimizer=st.sampled_from(["sgd", "adamw", None]),
    weight_decay=st.none() | number(0, 1),
    schedule=st.sampled_from(["cosine", "step", "constant", None]),
    warmup_epochs=st.none() | number(0, 1),
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
                batchnorm_momentum=number(0, 1, open_low=True) | st.sampled_from(["auto", "keep"]),
            ),
        ),
        "train": section(
            batch_size=st.integers(1, 10**6),
            weight_decay=number(0, 1e300) | AUTO,
            ema=st.none() | number(0, 1, open_low=True, open_high=True),
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
    # YAML 1.1 readers, as PyYAML's own, see the same values: no float or text changes its type.
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
