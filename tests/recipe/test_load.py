"""Reading recipes: the meaning of valid ones, and all faults at once, each at its place."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.errors import RecipeError
from finetune.recipe.catalog import backbones
from finetune.recipe.load import MAX_PROBLEMS, given_recipe, load_recipe, parse_recipe
from finetune.recipe.schema import PhaseSection, Recipe

Problems = Callable[..., list[str]]
LEAST = "data: {source: digits}\nmodel: {backbone: resnet18}\n"


def test_a_valid_recipe_has_the_written_values(sound: str) -> None:
    recipe = parse_recipe(sound, "recipe.yaml")
    assert recipe.seed == 3
    assert recipe.data.source == "photos"
    assert recipe.data.image_size == 64
    assert recipe.model.head.dropout == 0.25
    assert recipe.train.augment.scale == (0.5, 1.0)
    assert recipe.train.augment.color_jitter is not None
    assert recipe.train.augment.color_jitter.hue == 0.05
    assert [phase.freeze for phase in recipe.train.phases] == ["backbone", 4]


def test_auto_values_are_resolved(sound: str) -> None:
    first, second = parse_recipe(sound, "recipe.yaml").train.phases
    assert (first.lr, second.lr) == (1e-3, 1e-2)
    assert first.head_lr_mult == second.head_lr_mult == 10.0
    assert first.optimizer == second.optimizer == "sgd"
    assert first.weight_decay == 1e-4
    scratch = parse_recipe(LEAST.replace("resnet18", "resnet18, weights: none"), "r").train.phases[0]
    assert (scratch.lr, scratch.head_lr_mult) == (1e-3, 1.0)


def test_the_smallest_recipe_loads() -> None:
    recipe = parse_recipe(LEAST, "recipe.yaml")
    train = recipe.train.model_copy(update={"phases": (PhaseSection(),)})
    assert Recipe(data=recipe.data, model=recipe.model, train=train) == recipe


def test_all_faults_come_at_once_sorted_by_place(problems: Problems) -> None:
    text = """\
data:
  source: 2024
  image_sise: 64
  workers: abc
train:
  epochs: 3
  batch_size: 0
  augment: {flip: yes, scale: [0.9, 0.1], ratio: [1], color_jitter: {hue: 3}}
  phases:
    - {lr: "1e-3", freeze: -1, epochs: 2.5}
    - 3
model:
  backbone: resnet19
"""
    assert problems(text) == [
        "recipe.yaml:2:11: data.source: must be a text, not empty; it is 2024. Put it in quotes if it is a "
        "name.",
        "recipe.yaml:3:3: data.image_sise: unknown key. Did you mean 'image_size'?",
        "recipe.yaml:4:12: data.workers: must be a whole number from 0 to 256, or auto; it is 'abc'",
        "recipe.yaml:6:3: train.epochs: unknown key here. It belongs in train.phases[].",
        "recipe.yaml:7:15: train.batch_size: must be a whole number from 1 to 1000000, or auto; it is 0",
        "recipe.yaml:8:19: train.augment.flip: must be true or false; it is 'yes'. Write true.",
        "recipe.yaml:8:31: train.augment.scale: must be [low, high] with 0 < low <= high; it is [0.9, 0.1]",
        "recipe.yaml:8:50: train.augment.ratio: must be a list [a number from 0.01 to 100, a number from "
        "0.01 to 100]; it is a list of 1",
        "recipe.yaml:8:75: train.augment.color_jitter.hue: must be a number from 0 to 0.5; it is 3",
        "recipe.yaml:10:12: train.phases[0].lr: must be a number from 1e-12 to 100, or auto; it is "
        "'1e-3'. Remove the quotes.",
        "recipe.yaml:10:28: train.phases[0].freeze: must be a whole number from 0 to 10000, or a text, "
        "not empty; it is -1",
        "recipe.yaml:10:40: train.phases[0].epochs: must be a whole number from 1 to 1000000; it is 2.5",
        "recipe.yaml:11:7: train.phases[1]: must be a section (freeze, epochs, lr, …); it is 3",
        *[each for each in problems(text) if each.startswith("recipe.yaml:13:13: model.backbone: unknown")],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "data: {}\nmodel:\n  backbone: vgg11\n",
            "1:7: data.source: missing. Where the images come",
        ),
        ("\n\nmodel:\n  backbone: vgg11\n", "3:1: data: missing. Write this section with at least: source"),
        ("data:\nmodel: {backbone: vgg11}\n", "1:6: data: must be a section (source, val_fraction, "),
        (LEAST + "train: {phases: []}", "3:17: train.phases: must be a list of at least 1, each a section"),
        (LEAST + "train: {phases: {lr: 1}}", "3:17: train.phases: must be a list of at least 1, each a sec"),
        (LEAST + "train: {momentun: 1}", "3:9: train.momentun: unknown key. Did you mean 'momentum'?"),
        (LEAST + "trian: {momentum: 1}", "3:1: trian: unknown key. Did you mean 'train'?"),
        (LEAST + "xyzzy: 1", "3:1: xyzzy: unknown key. Known here: seed, data, model, train, cache."),
        (LEAST + "train: {optimizer: adam}", "it is 'adam'. Did you mean 'adamw'?"),
        (
            LEAST + "train: {weight_decay: outo}",
            "0, or a number from 1e-12 to 100, or auto; it is 'outo'. Did you mean 'auto'?",
        ),
        (LEAST + "train: {ema: 1}", "must be a number from 1e-06 to 0.999999, or null; it is 1"),
        (LEAST + "train: {momentum: true}", "3:19: train.momentum: must be a number from 0 to 0.999; it"),
        (
            LEAST + "train: {batch_size: true}",
            "train.batch_size: must be a whole number from 1 to 1000000, or auto; it is",
        ),
        (
            LEAST + "train: {batch_size: 1e2}",
            "train.batch_size: must be a whole number from 1 to 1000000, or auto; it is",
        ),
        (
            LEAST + "train: {batch_size:}",
            "train.batch_size: must be a whole number from 1 to 1000000, or auto; it is empty",
        ),
        (LEAST + "train: {deterministic: No}", "must be true or false; it is 'No'. Write false."),
        (
            LEAST + "seed: 4294967296",
            "3:7: seed: must be a whole number from 0 to 4294967295",
        ),
        (
            LEAST + "train: {augment: {scale: [0.1, x]}}",
            "3:32: train.augment.scale[1]: must be a number from",
        ),
        (
            LEAST + "train: {augment: {scale: [1, 1, 1]}}",
            "scale: must be a list [a number from 1e-06 to 1, a numb",
        ),
        (
            "data: {source: ''}\nmodel: {backbone: vgg11}",
            "1:16: data.source: must be a text, not empty; it is ''",
        ),
    ],
)
def test_one_fault_is_one_problem_in_plain_words(problems: Problems, text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("recipe.yaml:")
    assert expected in problem


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (
            "{warmup_epochs: 2, phases: [{epochs: 2}, {schedule: one_cycle, warmup_epochs: 0}, "
            "{schedule: one_cycle, warmup_epochs: 1}]}",
            [
                "recipe.yaml:3:36: train.phases[0]: train.warmup_epochs (2) applies to this phase: "
                "warmup_epochs (2) must be less than epochs (2)",
                "recipe.yaml:3:127: train.phases[2].warmup_epochs: one_cycle has its own warmup; "
                "set warmup_epochs: 0 here",
            ],
        ),
        (
            "{augment: {trivial_augment: true, randaugment: {}}}",
            [
                "recipe.yaml:3:36: train.augment.trivial_augment: choose one of randaugment and "
                "trivial_augment"
            ],
        ),
    ],
)
def test_conflicting_keys_are_reported_at_their_place(
    problems: Problems, train: str, expected: list[str]
) -> None:
    assert problems(LEAST + f"train: {train}") == expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("timn:resnet50", "timm:resnet50"),
        ("Timm:resnet10t", "timm:resnet10t"),
        ("resnet:50", "resnet50"),
        ("timm:", None),
        (":resnet18", "resnet18"),
        ("x" * 5000 + ":resnet18", None),
    ],
)
def test_an_unknown_library_is_refused_at_its_place(problems: Problems, name: str, meant: str | None) -> None:
    (problem,) = problems(LEAST.replace("resnet18", f'"{name}"'))
    assert problem.startswith(f"recipe.yaml:2:19: model.backbone: unknown backbone '{name[:60]}")
    assert len(problem) < 250
    assert ("Did you mean" in problem) is (meant is not None)
    assert meant is None or f" Did you mean '{meant}'?" in problem


def test_backbones_are_checked_at_their_place(problems: Problems) -> None:
    (problem,) = problems(LEAST.replace("resnet18", "resnet_18"))
    assert problem.startswith("recipe.yaml:2:19: model.backbone: unknown backbone 'resnet_18'.")
    assert "Did you mean 'resnet18'" in problem
    assert "`finetune backbones`" in problem
    assert (
        parse_recipe(LEAST.replace("resnet18", "timm:xception"), "recipe.yaml").model.backbone
        == "timm:xception"
    )
    for name in backbones():
        assert parse_recipe(LEAST.replace("resnet18", name), "r").model.backbone == name


def test_unknown_weights_of_a_backbone_are_refused(problems: Problems) -> None:
    (problem,) = problems(LEAST.replace("resnet18", "resnet18, weights: IMAGENET1K_V2"))
    assert problem == (
        "recipe.yaml:2:38: model.weights: resnet18 has no weights 'IMAGENET1K_V2'; it has IMAGENET1K_V1"
    )
    for weights in ("IMAGENET1K_V1", "none", "default", "runs/pets", "IMAGENET.pt"):
        parse_recipe(LEAST.replace("resnet18", f"resnet18, weights: {weights}"), "r")


def _keys(section: type[Any], path: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{path}{name}"
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation, f"{path}{name}.")


ALL_KEYS = [*_keys(Recipe), *(f"train.phases.0.{name}" for name in PhaseSection.model_fields)]


@pytest.mark.parametrize("key", ALL_KEYS)
def test_every_key_refuses_nonsense_with_one_problem(problems: Problems, key: str) -> None:
    (problem,) = [each for each in problems(LEAST, [f"{key}=[[]]"]) if each.startswith("--set ")]
    assert f": {key.replace('.0.', '[0].')}" in problem
    assert ": must be " in problem
    assert "Input should" not in problem


def test_at_most_fifty_problems_are_listed(problems: Problems) -> None:
    found = problems(LEAST + "".join(f"key{number}: 1\n" for number in range(4000)))
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"and more: the first {MAX_PROBLEMS} problems are shown"


def test_files_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(RecipeError) as caught:
            load_recipe(path)
        return str(caught.value)

    missing = tmp_path / "no.yaml"
    assert message(missing) == f"{missing}: no such file; `finetune recipe new -o {missing}` writes a starter"
    assert message(tmp_path) == f"{tmp_path}: a folder, not a recipe; give the file itself"
    (tmp_path / "recipe.yaml").write_text("")
    assert f"give {tmp_path / 'recipe.yaml'}" in message(tmp_path)
    assert "cannot be read" in message(tmp_path / "recipe.yaml" / "x")
    assert "cannot be read" in message(tmp_path / ("x" * 300))
    assert "not a usable path" in message(tmp_path / "a\0b")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "recipe.yaml"
    path.write_text(LEAST)
    monkeypatch.setattr(
        "finetune.recipe.load.open_regular", refuse
    )  # root may read everything, so that no file mode would do
    with pytest.raises(RecipeError, match=r"cannot be read .Permission denied.; check the path"):
        load_recipe(path)


def test_given_recipe_has_only_the_written_keys(tmp_path: Path, sound: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(sound)
    text = given_recipe(path, ["train.batch_size=8"])
    expected = yaml.safe_load(sound.replace("1e-3", "0.001").replace("5e-2", "0.05"))
    expected["train"]["batch_size"] = 8
    assert yaml.safe_load(text) == expected
    assert parse_recipe(text, "r") == load_recipe(path, ["train.batch_size=8"])
