"""The way to resize long images: compared only if many are long, and changed only for a clear gain."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from finetune.recipe.load import minimal_recipe
from finetune.recipe.schema import AugmentSection, Recipe
from finetune.strategy.advice import copies, first_pass
from finetune.strategy.advice.facts import Facts, Probed, Seconds, Shapes, Sized
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.rule import choose
from finetune.strategy.advice.settings import choose_settings
from finetune.strategy.advice.shapes import STAGES, in_shape, measure_shapes, with_shape
from finetune.strategy.probing.frozen_features import frozen_recipe
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.setup.prepare import Setup, load_data, prepare

Cli = Callable[..., Any]


def images(root: Path, size: tuple[int, int], where: str, upright: bool = False) -> Path:
    """Make two classes of noisy images that differ in the colour of one end, or of the middle."""
    rng = np.random.default_rng(0)
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (root / name).mkdir(parents=True)
        for index in range(24):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            part = size[0] // 5
            left = 0 if where == "end" else (size[0] - part) // 2
            pixels[:, left : left + part] = colour
            image = Image.fromarray(pixels)
            (image.transpose(Image.Transpose.ROTATE_90) if upright else image).save(
                root / name / f"{index}.png"
            )
    return root


def measured(root: Path, *settings: str) -> tuple[Shapes, Recipe, Setup]:
    """Measure ``root``: the shapes, the advised recipe, and the setup that resizes images accordingly."""
    untrained = ["model.weights=none", "data.image_size=32", *settings]
    recipe = minimal_recipe(str(root), "shufflenet_v2_x0_5", overrides=untrained, name="advice")
    plain = frozen_recipe(recipe, None)
    source = load_data(recipe.data, recipe.seed)
    setup = prepare(plain, source, choose_compute(pick_device("cpu"), plain.train))
    reports: list[tuple[str, int, int]] = []
    shapes = measure_shapes(recipe, setup, source.splits["train"], lambda *each: reports.append(each))
    assert shapes is not None
    # The features of the first way may be in a cache that the tests share.
    assert {what for what, done, total in reports if done == total} <= {STAGES[way] for way in shapes.sized}
    return shapes, with_shape(recipe, shapes), in_shape(recipe, setup, shapes)


@pytest.mark.parametrize("upright", [False, True])
def test_borders_that_matter_are_shown(upright: bool, tmp_path: Path) -> None:
    shapes, recipe, setup = measured(images(tmp_path / "photos", (160, 40), "end", upright))
    assert (shapes.long, shapes.ratio, shapes.own) == (1.0, 4.0, "shorter")
    assert set(shapes.sized) == {"shorter", "squash", "pad"}
    assert recipe.data.resize_mode == shapes.best in ("squash", "pad")
    assert setup.card.preprocessing.resize_mode == setup.recipe.data.resize_mode == shapes.best


def test_borders_that_do_not_matter_are_cropped(tmp_path: Path) -> None:
    shapes, recipe, setup = measured(images(tmp_path / "photos", (160, 40), "middle"))
    assert set(shapes.sized) == {"shorter", "squash", "pad"}
    assert recipe.data.resize_mode == "auto"
    assert setup.card.preprocessing.resize_mode == "shorter"


@pytest.mark.parametrize("size", [(40, 40), (48, 40), (40, 53)])
def test_near_square_images_are_not_compared(size: tuple[int, int], tmp_path: Path) -> None:
    shapes, recipe, _ = measured(images(tmp_path / "photos", size, "end"))
    assert (shapes.long, shapes.sized) == (0.0, {})
    assert recipe.data.resize_mode == "auto"


@pytest.mark.parametrize("mode", ["shorter", "squash", "pad"])
def test_the_mode_of_the_recipe_is_kept(mode: str, tmp_path: Path) -> None:
    root = images(tmp_path / "photos", (160, 40), "end")
    shapes, recipe, setup = measured(root, f"data.resize_mode={mode}")
    assert (shapes.own, shapes.sized) == (mode, {})
    assert recipe.data.resize_mode == setup.card.preprocessing.resize_mode == mode


def test_padding_is_left_out_if_the_size_excludes_it(tmp_path: Path) -> None:
    root = images(tmp_path / "photos", (160, 40), "end")
    shapes, _, _ = measured(root, "data.resize=40")
    assert set(shapes.sized) == {"shorter", "squash"}


def test_unreadable_images_and_classes_of_one(tmp_path: Path) -> None:
    root = images(tmp_path / "photos", (160, 40), "end")
    for path in sorted((root / "red").iterdir())[::2]:
        path.write_bytes(b"no image")
    shutil.copytree(root / "blue", root / "rare")
    for path in sorted((root / "rare").iterdir())[6:]:
        path.unlink()
    shapes, _, _ = measured(root, "data.on_bad_image=skip")
    assert shapes.n < 54
    assert set(shapes.sized) == {"shorter", "squash", "pad"}


def test_the_recipe_has_the_chosen_mode(chdir_tmp: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "AUGMENTATIONS", {"flip": AugmentSection(flip=True)})
    images(chdir_tmp / "photos", (160, 40), "end")
    words = ("--backbone", "shufflenet_v2_x0_5", "--set", "model.weights=none", "--set", "data.image_size=32")
    ended = cli("advise", "photos", *words, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    shapes, recipe = found["facts"]["shapes"], yaml.safe_load(found["recipe"])
    assert recipe["data"]["resize_mode"] in ("squash", "pad")
    assert f"chosen: data.resize_mode {recipe['data']['resize_mode']}" in found["recipe"]
    assert shapes["sized"]["shorter"]["gain"] == 0
    # The other facts were measured with that mode.
    assert found["facts"]["probe"]["top1"] > shapes["sized"]["shorter"]["top1"]


@pytest.mark.parametrize("soon", [0, 1_000])
def test_a_first_model_does_not_wait_for_the_comparison(
    soon: int, chdir_tmp: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few images, the first model comes first; another resize mode then starts again."""
    monkeypatch.setattr(first_pass, "SOON", soon)
    images(chdir_tmp / "photos", (160, 40), "end")
    words = ("--set", "model.backbone=shufflenet_v2_x0_5", "--set", "model.weights=none")
    ended = cli("train", "photos", *words, "--set", "data.image_size=32")
    assert ended.code == 0, ended.err
    assert (ended.err.index("a first model is in") < ended.err.index("images padded")) == bool(soon)
    recipe = yaml.safe_load(Path("runs/photos/recipe.yaml").read_text())
    assert recipe["data"]["resize_mode"] in ("squash", "pad")
    resolved = yaml.safe_load(Path("runs/photos/resolved.yaml").read_text())
    assert resolved["data"]["resize_mode"] == recipe["data"]["resize_mode"]
    lines = [json.loads(line) for line in Path("runs/photos/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "phase" in line] == list(range(1, len(lines)))
    again = cli("train", "runs/photos/recipe.yaml", "--run-dir", "again")
    assert again.code == 0, again.err
    weights = "checkpoints/best/model.safetensors"
    assert Path("again", weights).read_bytes() == Path("runs/photos", weights).read_bytes()


SHORTER = Sized(0.7, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sized", "best"),
    [
        ({}, "shorter"),
        ({"shorter": SHORTER, "squash": Sized(0.75, 0.05, 0.03), "pad": Sized(0.74, 0.04, 0.03)}, "shorter"),
        ({"shorter": SHORTER, "squash": Sized(0.8, 0.1, 0.06), "pad": Sized(0.77, 0.07, 0.03)}, "pad"),
        ({"shorter": SHORTER, "squash": Sized(0.9, 0.2, 0.03), "pad": Sized(0.8, 0.1, 0.03)}, "squash"),
        ({"shorter": SHORTER, "squash": Sized(0.9, 0.2, 0.03), "pad": Sized(0.9, 0.2, 0.03)}, "pad"),
        ({"shorter": SHORTER, "squash": Sized(0.5, -0.2, 0.03), "pad": Sized(0.6, -0.1, 0.03)}, "shorter"),
    ],
)
def test_only_a_clear_gain_changes_the_mode(sized: dict[Any, Sized], best: str) -> None:
    shapes = Shapes(48, 2.0, 1.0, 0.4, "shorter", sized)
    assert shapes.best == best
    depths = tuple(Probed(2 * n, f"layer{n}", 0.7, 48) for n in range(1, 5))
    facts = Facts(
        "photos", 2, 200, 20, 40, 100, 100, "resnet18", "none", 64, depths, depths[-1],
        (0.25, 0.5, 0.75, 1.0), 0.1, None, None, {}, Seconds(0.01, 0.01, 0.03), 200, 0, shapes,
    )  # fmt: skip
    assert Facts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts
    without = {name: value for name, value in facts.to_dict().items() if name != "shapes"}
    assert Facts.from_dict(without) == dataclasses.replace(facts, shapes=None)
    choice = choose(facts)
    said = dict(explain(facts, choice, choose_settings(choice.strategy, facts), 60.0))["shape"]
    assert (f"chosen: data.resize_mode {best}" in said) == (best != "shorter")
    assert ("was not compared" in said) == (not sized)
