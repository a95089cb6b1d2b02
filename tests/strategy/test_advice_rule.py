"""From facts to a choice, its settings, and the recipe that says them."""

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import UserError
from finetune.recipe.load import parse_recipe
from finetune.strategy.advice.advise import base_recipe
from finetune.strategy.advice.duration import ONCE, expected_seconds, in_words
from finetune.strategy.advice.facts import Facts, Probed, Seconds, Tried
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import (
    RULE,
    Similarity,
    Strategy,
    augmentation,
    bears,
    choose,
    settle,
    similarity,
    total_epochs,
)

NEUTRAL = Tried(kept=0.95, gain=0.0, error=0.01, told=0.5)
UNASKED = dataclasses.replace(NEUTRAL, told=None)
TRIED = dict.fromkeys(("flip", "vertical_flip"), NEUTRAL)
TRIED |= dict.fromkeys(("crop", "rotation", "color_jitter"), UNASKED)


def facts(**changes: Any) -> Facts:
    """Of 600 photos in 4 classes, similar to the source."""
    tops = changes.pop("tops", (0.5, 0.6, 0.7, 0.8))
    depths = tuple(Probed(2 * n, f"layer{n}", top1, 500) for n, top1 in enumerate(tops, 1))
    plain: dict[str, Any] = {
        "source": "photos", "classes": 4, "train": 600, "val": 60, "test": 100, "fewest": 150, "most": 150,
        "backbone": "resnet18", "weights": "torchvision IMAGENET1K_V1", "image_size": 224, "depths": depths,
        "probe": dataclasses.replace(depths[-1], n=600), "shares": tuple(n / 8 for n in range(1, 9)),
        "shift": 0.05, "confidence": 0.7, "told_apart": 0.5, "tried": TRIED,
        "seconds": Seconds(read=0.01, forward=0.02, step=0.06), "computed": 600, "cached": 0,
    }  # fmt: skip
    return Facts(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, Strategy.first_k),
        ({"train": 5_000, "most": 1_300}, Strategy.everything),
        ({"train": 30}, Strategy.probe),
        ({"fewest": 3}, Strategy.probe),
        ({"train": 50_000, "fewest": 9_000, "most": 20_000}, Strategy.everything),
        ({"shift": 1.0, "tops": (0.9, 0.8, 0.7, 0.6)}, Strategy.first_k),
        ({"shift": 1.0, "train": 5_000, "most": 1_300}, Strategy.everything),
        (
            {"train": 40_000, "fewest": 9_000, "most": 10_000, "shift": 1.0, "tops": (0.26,) * 4},
            Strategy.scratch,
        ),
        # As foreign, but too few to do without the source.
        ({"shift": 1.0, "tops": (0.26,) * 4}, Strategy.first_k),
    ],
)
def test_the_first_row_that_applies_decides(changes: dict[str, Any], strategy: Strategy) -> None:
    choice = choose(facts(**changes))
    assert choice.strategy is strategy
    assert next(row for row in RULE if row.applies(facts(**changes))) is choice.row


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, Similarity.similar),
        ({"shift": None}, Similarity.similar),
        ({"tops": (0.5, 0.6, 0.8, 0.79)}, Similarity.between),
        ({"tops": (0.5, 0.6, 0.9, 0.8)}, Similarity.dissimilar),
        ({"shift": 0.5}, Similarity.dissimilar),
    ],
)
def test_one_witness_against_is_enough(changes: dict[str, Any], judged: Similarity) -> None:
    assert similarity(facts(**changes)) is judged


def test_what_is_further_from_the_source_moves_faster() -> None:
    rates = [
        settle(Strategy.everything, facts(**changes)).lr
        for changes in ({}, {"tops": (0.5, 0.6, 0.8, 0.79)}, {"shift": 0.5})
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


@pytest.mark.parametrize(
    ("tops", "k"), [((0.5, 0.6, 0.7, 0.8), 6), ((0.5, 0.6, 0.9, 0.8), 4), ((0.9, 0.8, 0.7, 0.6), 1)]
)
def test_layers_before_the_best_probe_are_general(tops: tuple[float, ...], k: int) -> None:
    assert settle(Strategy.first_k, facts(tops=tops)).k == k


def test_more_pictures_take_fewer_epochs_and_let_the_statistics_follow() -> None:
    few, many = (settle(Strategy.everything, facts(train=train)) for train in (100, 50_000))
    assert few.epochs > many.epochs
    assert (few.batchnorm, many.batchnorm) == ("frozen", "train")


@pytest.mark.parametrize(
    ("changes", "borne"),
    [
        ({}, True),
        ({"told": 0.8}, False),
        ({"told": None}, True),
        ({"gain": -0.05}, False),
        # Within the doubt, where the copies are well known; beyond it, where they are not.
        ({"gain": -0.015, "kept": 0.95}, True),
        ({"gain": -0.015, "kept": 0.5}, False),
    ],
)
def test_what_pictures_bear(changes: dict[str, Any], borne: bool) -> None:
    assert bears(dataclasses.replace(NEUTRAL, **changes)) is borne


def test_what_costs_without_need_is_left_out() -> None:
    plain = augmentation(facts()).model_dump(exclude_defaults=True)
    assert plain == {"crop": "random_resized", "scale": (0.35, 1.0), "flip": True}
    helps = dataclasses.replace(NEUTRAL, gain=0.05)
    assert augmentation(facts(tried=TRIED | {"rotation": helps})).rotation == 15.0
    assert augmentation(facts(tried={})).model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("changes", [{}, {"train": 30, "fewest": 2}, {"shift": 1.0, "train": 30_000}])
def test_every_strategy_makes_a_recipe(strategy: Strategy, changes: dict[str, Any]) -> None:
    known = facts(**changes)
    chosen = settle(strategy, known)
    base = base_recipe("photos", "resnet18", ["seed=3", "data.image_size=96", "cache.limit=1GB"])
    text = write_recipe(base, strategy, chosen, explain(known, choose(known), chosen, 60.0))
    recipe = parse_recipe(text, "advised.yaml")
    assert (recipe.seed, recipe.data, recipe.cache) == (base.seed, base.data, base.cache)
    assert (recipe.model.weights == "none") is (strategy is Strategy.scratch)
    first, last = recipe.train.phases[0], recipe.train.phases[-1]
    if strategy in (Strategy.probe, Strategy.first_k, Strategy.everything):
        # The strength of the solved head is cross-validation's, whatever the decay of the steps.
        assert (first.freeze, first.optimizer, first.weight_decay) == ("backbone", "lbfgs", "auto")
    expected = {
        Strategy.probe: "backbone", Strategy.head: "backbone", Strategy.first_k: 6,
        Strategy.everything: "none", Strategy.scratch: "none",
    }  # fmt: skip
    assert last.freeze == expected[strategy]
    assert "\n# " in text
    assert "  # " in text or len(recipe.train.phases) == 1


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()))
@settings(max_examples=60, deadline=None)
def test_any_name_of_pictures_comes_back(name: str) -> None:
    base = base_recipe(name, "resnet18")
    text = write_recipe(base, Strategy.probe, settle(Strategy.probe, facts()))
    assert parse_recipe(text, "advised.yaml").data.source == name


@pytest.mark.parametrize("override", ["train.batch_size=8", "model.head.hidden=3", "train.phases.0.epochs=2"])
def test_what_the_advice_is_to_say_is_not_given(override: str) -> None:
    with pytest.raises(UserError, match="that is for the advice to say"):
        base_recipe("photos", "resnet18", [override])


def test_the_expected_time_adds_up() -> None:
    known = facts()
    everything = settle(Strategy.everything, known)
    tests = 100 * 0.03
    epochs = everything.epochs * (600 * 0.07 + 60 * 0.03)
    assert expected_seconds(Strategy.everything, everything, known) == pytest.approx(ONCE + tests + epochs)
    half = settle(Strategy.first_k, known)
    assert half.k == 6  # of eight, which take three quarters of the operations
    step = 0.01 + 0.75 * 0.02 + 0.25 * 0.06
    assert expected_seconds(Strategy.first_k, half, known) == pytest.approx(
        ONCE + tests + half.epochs * (600 * step + 60 * 0.03)
    )
    probe = settle(Strategy.probe, known)
    assert expected_seconds(Strategy.probe, probe, known) == pytest.approx(ONCE + tests + 60 * 0.03)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "about 10 seconds"), (44, "about 40 seconds"), (600, "about 10 minutes"), (9000, "about 2.5 hours")],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_the_reasons_have_the_numbers() -> None:
    known = facts(tried=TRIED | {"flip": dataclasses.replace(NEUTRAL, told=0.81)})
    choice = choose(known)
    lines = explain(known, choice, settle(choice.strategy, known), 120.0)
    text = "\n".join(f"{heading}: {sentence}" for heading, sentence in lines)
    for words in (
        "600 training pictures in 4 classes of 150",
        "shifted by 0.05 nats",
        "right in 80.0 %",
        "layer 4: 60.0 %",
        "refused: mirroring left and right (81 % of copies",
        "used: random crops",
        "weight decay 0.05, label smoothing 0.1",
        "about 2 minutes",
    ):
        assert words in text


def test_facts_come_back_from_json_as_they_were() -> None:
    known = facts(notes=("photos: files that are no pictures were passed over (.txt 1)",))
    assert Facts.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    older = {key: value for key, value in known.to_dict().items() if key != "notes"}
    assert Facts.from_dict(older) == facts()


@pytest.mark.parametrize("strategy", Strategy)
def test_epochs_are_those_of_the_whole_run(strategy: Strategy) -> None:
    """As many as training such a recipe counts: a head that is solved first is one of them."""
    known = facts()
    settled = settle(strategy, known)
    recipe = parse_recipe(write_recipe(base_recipe("photos", "resnet18"), strategy, settled, ()), "r")
    epochs = total_epochs(strategy, settled)
    assert sum(phase.epochs for phase in recipe.train.phases) == epochs
    choice = dataclasses.replace(choose(known), strategy=strategy)
    advice = dict(explain(known, choice, settled, 60.0))["advice"]
    counted = re.search(r"(\d+) epochs", advice)
    assert strategy is Strategy.probe or (counted is not None and int(counted[1]) == epochs)
