"""The rule of advice, the settings that follow, and the recipe."""

import dataclasses
import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import UserError
from finetune.recipe.load import parse_recipe
from finetune.strategy.advice.advise import base_recipe
from finetune.strategy.advice.augmentation_rule import (
    Verdict,
    augmentations_to_try,
    chosen_augmentations,
    judge,
)
from finetune.strategy.advice.augmentations import AUGMENTATIONS
from finetune.strategy.advice.facts import Facts, Probed, Seconds, Tried
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import RULE, Similarity, Strategy, choose, similarity
from finetune.strategy.advice.settings import (
    ONCE,
    choose_settings,
    expected_seconds,
    format_duration,
    total_epochs,
)

NEUTRAL = Tried(kept=0.95, gain=0.0, error=0.01, told=0.5, n=256)
UNASKED = dataclasses.replace(NEUTRAL, told=None)
TRIED = dict.fromkeys(("flip", "vertical_flip"), NEUTRAL)
TRIED |= dict.fromkeys(("crop", "rotation", "color_jitter"), UNASKED)


def facts(**changes: Any) -> Facts:
    """Facts of 600 photos in 4 classes, similar to the source."""
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
        # As dissimilar, but too few to train from scratch.
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
def test_one_measurement_against_the_source_is_enough(changes: dict[str, Any], judged: Similarity) -> None:
    assert similarity(facts(**changes)) is judged


def test_dissimilar_images_get_a_higher_rate() -> None:
    rates = [
        choose_settings(Strategy.everything, facts(**changes)).lr
        for changes in ({}, {"tops": (0.5, 0.6, 0.8, 0.79)}, {"shift": 0.5})
    ]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


@pytest.mark.parametrize(
    ("tops", "k"), [((0.5, 0.6, 0.7, 0.8), 6), ((0.5, 0.6, 0.9, 0.8), 4), ((0.9, 0.8, 0.7, 0.6), 1)]
)
def test_layers_before_the_best_probe_stay_frozen(tops: tuple[float, ...], k: int) -> None:
    assert choose_settings(Strategy.first_k, facts(tops=tops)).k == k


def test_more_images_take_fewer_epochs_and_update_the_statistics() -> None:
    few, many = (choose_settings(Strategy.everything, facts(train=train)) for train in (100, 50_000))
    assert few.epochs > many.epochs
    assert (few.batchnorm, many.batchnorm) == ("frozen", "train")


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("right", [1.0, 0.97, 0.9, 0.7, 0.3])
def test_val_decides_only_if_it_is_large_enough(right: float, near: bool) -> None:
    """Tuning needs evidence: on val, or on train if the features do not fit or a third of train is wrong."""
    grid = itertools.product([43, 120, 450, 1_900, 6_000], [1, 5, 12, 19, 20, 45, 400], [2, 10])
    for train, val, classes in grid:
        each = train // classes
        known = facts(
            train=train, val=val, classes=classes, fewest=each, most=each, tops=(0.1, 0.1, 0.1, right),
            shift=0.05 if near else 0.5,
        )  # fmt: skip
        choice = choose(known)
        chosen = choose_settings(choice.strategy, known)
        tunes = choice.strategy is not Strategy.probe
        speak_on_val, speak_on_train = val * (1 - right), train * (1 - right)
        if speak_on_train < 5 - 1e-9:
            assert not tunes
        elif val >= 20 and speak_on_val >= 5 + 1e-9:
            assert tunes
            assert chosen.select != "last"
            assert chosen.early_stopping is None or 4 <= chosen.early_stopping < chosen.epochs
            # If the features do not fit, tuning pays late, and there is no early stopping.
            stops = near and right >= 2 / 3 and chosen.epochs > 4
            assert (chosen.early_stopping is not None) is stops
        elif val < 20 or speak_on_val < 5 - 1e-9:
            assert tunes is ((not near or right < 2 / 3) and speak_on_train >= 5)
            if tunes:
                assert (chosen.select, chosen.early_stopping) == ("last", None)
        words = dict(explain(known, choice, chosen, 60.0))["best epoch"]
        assert ("cannot choose" in words) is (chosen.select == "last")


def test_few_images_that_a_probe_separates_get_a_solved_head() -> None:
    known = facts(train=43, val=5, classes=2, fewest=20, most=23, tops=(0.9, 0.95, 1.0, 1.0))
    choice = choose(known)
    assert choice.strategy is Strategy.probe
    assert "fewer than 5 training images that a solved head gets wrong" in choice.row.when


def test_the_recipe_says_how_the_best_epoch_is_chosen() -> None:
    for changes, select, patience in (
        ({"shift": 0.5, "train": 100, "val": 12}, "last", None),
        ({}, "loss", 4),
        ({"shift": 0.5}, "loss", None),
        ({"train": 6_000, "val": 600}, "top1", None),
    ):
        known = facts(**changes)
        choice = choose(known)
        chosen = choose_settings(choice.strategy, known)
        text = write_recipe(base_recipe("photos", "resnet18"), choice.strategy, chosen)
        recipe = parse_recipe(text, "advised.yaml")
        assert (recipe.train.select, recipe.train.early_stopping) == (select, patience)


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, Verdict.used, "unless"),
        ({"told": 0.8}, Verdict.refused, "distinguished from originals"),
        ({"told": None}, Verdict.used, "unless"),
        ({"gain": -0.05}, Verdict.refused, "costs more than 2 standard errors"),
        # The doubt is larger if the copies are predicted like the originals.
        ({"gain": -0.015, "kept": 0.95}, Verdict.used, "unless"),
        ({"gain": -0.015, "kept": 0.5}, Verdict.refused, "more than 1 standard error"),
        # With few images, a classifier distinguishes more copies by chance.
        ({"told": 0.75, "n": 43}, Verdict.used, "43 images are too few"),
        ({"told": 0.6, "n": 43}, Verdict.used, "43 images are too few"),
        ({"told": 0.95, "n": 43}, Verdict.refused, "distinguished from originals"),
        ({"told": 0.75, "n": 400}, Verdict.refused, "distinguished from originals"),
    ],
)
def test_the_verdict_on_an_augmentation(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    found, rule = judge("flip", dataclasses.replace(NEUTRAL, **changes), Similarity.similar)
    assert found is verdict
    assert said in rule


def test_dissimilar_images_are_not_mirrored_without_evidence() -> None:
    unsure = dataclasses.replace(NEUTRAL, told=0.75, n=43)
    for near, verdict in (
        (Similarity.similar, Verdict.used),
        (Similarity.between, Verdict.used),
        (Similarity.dissimilar, Verdict.refused),
    ):
        assert judge("flip", unsure, near)[0] is verdict
    # Mirroring top and bottom is rarely useful, with or without evidence.
    assert judge("vertical_flip", unsure, Similarity.similar)[0] is Verdict.not_needed


def test_the_line_states_the_rule() -> None:
    """+2.3 is not needed and +0.9 is used: different rules apply, and the lines state them."""
    tried = {
        "rotation": dataclasses.replace(UNASKED, gain=0.023, error=0.014),
        "crop": dataclasses.replace(UNASKED, gain=0.009, error=0.013),
    }
    known = facts(tried=tried)
    choice = choose(known)
    lines = [
        words for heading, words in explain(known, choice, choose_settings(choice.strategy, known), 1.0)
        if heading == "augment"
    ]  # fmt: skip
    assert lines[0].startswith(
        "not needed: rotation by up to 15 degrees (rarely useful, so used only if it gains"
    )
    assert lines[1].startswith("used: random crops (used unless training on copies costs")
    assert "+2.3 points of accuracy, standard error 1.4" in lines[0]


def test_augmentations_are_measured_only_for_tuning() -> None:
    assert augmentations_to_try(facts(train=30), 30) == ()
    assert set(augmentations_to_try(facts(), 256)) == set(AUGMENTATIONS)
    # A probe gets four of 20 images wrong: rare augmentations could not gain two standard errors.
    assert set(augmentations_to_try(facts(), 20)) == {"flip", "crop"}


def test_rare_augmentations_are_used_only_if_they_help() -> None:
    plain = chosen_augmentations(facts()).model_dump(exclude_defaults=True)
    assert plain == {"crop": "random_resized", "scale": (0.35, 1.0), "flip": True}
    helps = dataclasses.replace(NEUTRAL, gain=0.05)
    assert chosen_augmentations(facts(tried=TRIED | {"rotation": helps})).rotation == 15.0
    assert chosen_augmentations(facts(tried={})).model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("changes", [{}, {"train": 30, "fewest": 2}, {"shift": 1.0, "train": 30_000}])
def test_every_strategy_makes_a_recipe(strategy: Strategy, changes: dict[str, Any]) -> None:
    known = facts(**changes)
    chosen = choose_settings(strategy, known)
    base = base_recipe("photos", "resnet18", ["seed=3", "data.image_size=96", "cache.limit=1GB"])
    text = write_recipe(base, strategy, chosen, explain(known, choose(known), chosen, 60.0))
    recipe = parse_recipe(text, "advised.yaml")
    assert (recipe.seed, recipe.data, recipe.cache) == (base.seed, base.data, base.cache)
    assert (recipe.model.weights == "none") is (strategy is Strategy.scratch)
    first, last = recipe.train.phases[0], recipe.train.phases[-1]
    if strategy in (Strategy.probe, Strategy.first_k, Strategy.everything):
        # Cross-validation chooses the decay of the solved head, whatever the decay of the steps.
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
def test_any_source_name_survives_the_recipe(name: str) -> None:
    base = base_recipe(name, "resnet18")
    text = write_recipe(base, Strategy.probe, choose_settings(Strategy.probe, facts()))
    assert parse_recipe(text, "advised.yaml").data.source == name


@pytest.mark.parametrize("override", ["train.batch_size=8", "model.head.hidden=3", "train.phases.0.epochs=2"])
def test_keys_that_advice_chooses_are_refused(override: str) -> None:
    with pytest.raises(UserError, match="advice chooses this key"):
        base_recipe("photos", "resnet18", [override])


def test_the_expected_duration_adds_up() -> None:
    known = facts()
    everything = choose_settings(Strategy.everything, known)
    tests = 100 * 0.03
    epochs = everything.epochs * (600 * 0.07 + 60 * 0.03)
    assert expected_seconds(Strategy.everything, everything, known) == pytest.approx(ONCE + tests + epochs)
    half = choose_settings(Strategy.first_k, known)
    assert half.k == 6  # of eight, which take three quarters of the operations
    step = 0.01 + 0.75 * 0.02 + 0.25 * 0.06
    assert expected_seconds(Strategy.first_k, half, known) == pytest.approx(
        ONCE + tests + half.epochs * (600 * step + 60 * 0.03)
    )
    probe = choose_settings(Strategy.probe, known)
    assert expected_seconds(Strategy.probe, probe, known) == pytest.approx(ONCE + tests + 60 * 0.03)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "about 10 seconds"), (44, "about 40 seconds"), (600, "about 10 minutes"), (9000, "about 2.5 hours")],
)
def test_times_format_duration(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_the_reasons_have_the_numbers() -> None:
    known = facts(tried=TRIED | {"flip": dataclasses.replace(NEUTRAL, told=0.81)})
    choice = choose(known)
    lines = explain(known, choice, choose_settings(choice.strategy, known), 120.0)
    text = "\n".join(f"{heading}: {sentence}" for heading, sentence in lines)
    for words in (
        "600 training images in 4 classes of 150",
        "shifted by 0.05 nats",
        "right in 80.0 %",
        "layer 4: 60.0 %",
        "refused: mirroring left and right (copies are distinguished from originals",
        "used: random crops",
        "81 % of copies and originals distinguished",
        "tuning stops after 4 epochs without improvement",
        "weight decay 0.05, label smoothing 0.1",
        "about 2 minutes",
    ):
        assert words in text


def test_facts_survive_json() -> None:
    known = facts(notes=("photos: skipped files that are not images (.txt 1)",))
    assert Facts.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    older = {key: value for key, value in known.to_dict().items() if key != "notes"}
    assert Facts.from_dict(older) == facts()


@pytest.mark.parametrize("strategy", Strategy)
def test_epochs_count_the_whole_run(strategy: Strategy) -> None:
    """Solving the head counts as one epoch, as in training."""
    known = facts()
    settled = choose_settings(strategy, known)
    recipe = parse_recipe(write_recipe(base_recipe("photos", "resnet18"), strategy, settled, ()), "r")
    epochs = total_epochs(strategy, settled)
    assert sum(phase.epochs for phase in recipe.train.phases) == epochs
    choice = dataclasses.replace(choose(known), strategy=strategy)
    advice = dict(explain(known, choice, settled, 60.0))["advice"]
    counted = re.search(r"(\d+) epochs", advice)
    assert strategy is Strategy.probe or (counted is not None and int(counted[1]) == epochs)
