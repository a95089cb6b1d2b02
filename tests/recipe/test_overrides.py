"""``--set`` overrides the file and uses the same schema; errors cite the flag."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import RecipeError
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe

Problems = Callable[..., list[str]]


def read(sound: str, *flags: str) -> Recipe:
    return parse_recipe(sound, "recipe.yaml", flags)


def test_values_replace_those_of_the_file(sound: str) -> None:
    recipe = read(
        sound,
        "train.phases.0.lr=1e-2",
        "train.phases[1].lr=2e-2",
        "seed=7",
        "data.source=no",
        "train.augment.flip=true",
        "train.augment.scale=[0.1, 0.9]",
        "model.head={dropout: 0.5, init: zero}",
    )
    assert [phase.lr for phase in recipe.train.phases] == [1e-2, 2e-2]
    assert (recipe.seed, recipe.data.source, recipe.train.augment.flip) == (7, "no", True)
    assert recipe.train.augment.scale == (0.1, 0.9)
    assert (recipe.model.head.dropout, recipe.model.head.init) == (0.5, "zero")


def test_the_rest_of_the_file_stays(sound: str) -> None:
    plain, changed = read(sound), read(sound, "train.phases.0.lr=0.5")
    assert changed.data == plain.data
    assert changed.train.phases[1] == plain.train.phases[1]
    assert changed.train.phases[0].freeze == "backbone"


def test_a_later_flag_wins(sound: str) -> None:
    assert read(sound, "seed=1", "seed=2").seed == 2
    assert read(sound, "train.phases.0.epochs=9", "train.phases=[{epochs: 2}]").train.phases[0].epochs == 2


def test_missing_sections_are_created() -> None:
    recipe = parse_recipe(
        "seed: 1", "r", ["data.source=digits", "model.backbone=vgg11", "train.phases.0.epochs=2"]
    )
    assert (recipe.data.source, recipe.train.phases[0].epochs) == ("digits", 2)
    recipe = parse_recipe("", "r", ["data={source: digits}", "model={backbone: vgg11}"])
    assert recipe.seed == 0
    text = "data: {source: digits}\nmodel: {backbone: vgg11}\ntrain: {augment: {color_jitter: null}}"
    jitter = parse_recipe(text, "r", ["train.augment.color_jitter.hue=0.1"]).train.augment.color_jitter
    assert jitter is not None
    assert jitter.hue == 0.1


def test_an_index_at_the_end_adds_an_entry(sound: str) -> None:
    phases = read(sound, "train.phases.2.epochs=7", "train.phases.2.freeze=layer1.0").train.phases
    assert [phase.epochs for phase in phases] == [1, 5, 7]
    assert phases[2].freeze == "layer1.0"


def test_values_follow_the_rules_of_the_file(sound: str) -> None:
    assert read(sound, "train.ema=").train.ema is None
    assert read(sound, "data.source=a=b").data.source == "a=b"
    assert read(sound, "data.source='7'").data.source == "7"
    assert read(sound, "data.source=torchvision:CIFAR10").data.source == "torchvision:CIFAR10"


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        (
            "train.phases.0.lr=abc",
            "train.phases[0].lr: must be a number from 1e-12 to 100, or auto; it is 'abc'",
        ),
        ("train.phases.0.lr=-1", "train.phases[0].lr: must be a number from 1e-12 to 100, or auto; it is -1"),
        ("foo", "write it as KEY=VALUE, such as --set train.batch_size=64"),
        ("=3", "'' is not a key; write names with dots between"),
        ("a..b=1", "'a..b' is not a key"),
        (".seed=1", "'.seed' is not a key"),
        ("train.phases.-1.lr=1", "'train.phases.-1.lr' is not a key"),
        ("train.phases[x].lr=1", "'train.phases[x].lr' is not a key"),
        (
            "train.phases.3.lr=1",
            "train.phases: a list of 2; write a number from 0 to 2 (2 adds an entry) here, not 3",
        ),
        ("train.phases.999999.lr=1", "train.phases: a list of 2"),
        (
            "train.phases.lr=1",
            "train.phases: a list of 2; write a number from 0 to 2 (2 adds an entry) here, not 'lr'",
        ),
        ("seed.x=1", "seed: it is 3, which has no entry 'x'"),
        ("data.0=1", "data: it is a mapping, which has no entry 0"),
        ("0=1", "it is a mapping, which has no entry 0"),
        ("train.augmnt.flip=true", "train.augmnt: unknown key. Did you mean 'augment'?"),
        ("train.lr=1", "train.lr: unknown key here. It belongs in train.phases[]."),
        ("seed=010", "seed: '010' is octal in YAML 1.1"),
        (
            "train.phases=[{lr: 1, lr: 2}]",
            "train.phases[0].lr: given twice, first in the same value; remove one",
        ),
        ("seed=[", "not valid YAML"),
        ("seed=!!python/name:os.system x", "seed: the tag '!!python/name:os.system' is not allowed"),
        ("model.backbone=resnet_18", "model.backbone: unknown backbone 'resnet_18'."),
        ("model.weights=IMAGENET1K_V9", "model.weights: resnet18 has no weights 'IMAGENET1K_V9'"),
        ("model={}", "model.backbone: missing"),
        ("train.warmup_epochs=7", "train.phases[0]: train.warmup_epochs (7) applies to this phase"),
    ],
)
def test_errors_cite_the_flag(problems: Problems, sound: str, flag: str, expected: str) -> None:
    found = [each for each in problems(sound, [flag]) if each.startswith(f"--set {flag}: ")]
    if "warmup" in flag:  # the phases are in the file, and so is the place of the problem
        found = problems(sound, [flag])[:1]
    (problem,) = found
    assert expected in problem


def test_an_index_into_nothing_starts_at_0(problems: Problems) -> None:
    text = "data: {source: digits}\nmodel: {backbone: vgg11}"
    assert problems(text, ["train.phases.1.lr=1"]) == [
        "--set train.phases.1.lr=1: train.phases: a list of 0; write 0 here, not 1"
    ]


def test_faults_of_file_and_flags_come_together(problems: Problems, sound: str) -> None:
    found = problems(sound.replace("seed: 3", "seed: x"), ["foo", "train.batch_size=0"])
    assert [each.split(": ")[0] for each in found] == [
        "recipe.yaml:2:7",
        "--set foo",
        "--set train.batch_size=0",
    ]
    found = problems("- a", ["foo"])
    assert [each.split(": ")[0] for each in found] == ["recipe.yaml:1:1", "--set foo"]


def test_odd_flags_are_shown_on_one_line(problems: Problems, sound: str) -> None:
    (problem,) = problems(sound, ["x\n\x1b[31m"])
    assert problem.isprintable()
    (problem,) = problems(sound, ["data.source=\udcff"])
    assert "U+DCFF" in problem
    (problem,) = problems(sound, ["seed=" + "x" * 10_000])
    assert len(problem) < 400


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.lists(
        st.sampled_from(["train", "phases", "0", "1", "2", "lr", "data", "x", "", "[0]"]), max_size=5
    ),
    value=st.one_of(st.text(max_size=12), st.sampled_from(["1", "[", "{}", "*a", "&a [*a]", "\t", "!!x"])),
    equals=st.booleans(),
)
def test_any_flag_is_accepted_or_refused(sound: str, key: list[str], value: str, equals: bool) -> None:
    with contextlib.suppress(RecipeError):
        read(sound, ".".join(key) + ("=" if equals else "") + value)
