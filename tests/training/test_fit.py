"""A run from its start to its result, and how it continues."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.errors import RunDirError
from finetune.recipe.schema import Recipe
from finetune.training.fit import Result, fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from small_runs import metrics

TRAIN = "{batch_size: 4, phases: [{epochs: 2, lr: 1e-2}]}"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.stand_in(monkeypatch)
    return tiny.draw_images(tmp_path / "images", {"train": (4, 4), "val": (3, 3), "test": (3, 3)})


def train(run: Path, recipe: Recipe, **options: Any) -> Result:
    with RunDir.open(run, resume=options.get("resume", False)) as directory:
        return fit(recipe, directory, device="cpu", continuation=Continuation(**options))


def state(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
    return found


def test_the_result_names_the_best_epoch_and_an_unseen_image(images: Path, tmp_path: Path) -> None:
    result = train(tmp_path / "run", tiny.recipe(images, TRAIN))
    first, second, last = metrics(result.run)
    assert [first["epoch"], second["epoch"], last["split"]] == [1, 2, "test"]
    assert result.epochs == 2
    assert result.best.val_top1 == max(first["val_top1"], second["val_top1"])
    assert result.test is not None
    assert result.test.top1 == last["test_top1"]
    assert Path(result.example or "").is_relative_to(images / "test")
    assert not result.already_finished


def test_without_a_test_split_there_is_no_test_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (4, 4), "val": (3, 3)})
    result = train(tmp_path / "run", tiny.recipe(source, TRAIN))
    assert result.test is None
    assert Path(result.example or "").is_relative_to(source / "val")
    assert state(result.run)["finished"]


def test_the_run_keeps_the_users_recipe(images: Path, tmp_path: Path) -> None:
    with RunDir.open(tmp_path / "run") as directory:
        fit(tiny.recipe(images, TRAIN), directory, recipe_file=b"# as written\n", device="cpu")
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == b"# as written\n"
    without = train(tmp_path / "without", tiny.recipe(images, TRAIN)).run
    assert (without / "recipe.yaml").read_bytes() == (without / "resolved.yaml").read_bytes()


def test_resuming_a_finished_run_does_nothing(images: Path, tmp_path: Path) -> None:
    first = train(tmp_path / "run", tiny.recipe(images, TRAIN))
    before = {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()}
    again = train(tmp_path / "run", tiny.recipe(images, TRAIN), resume=True)
    assert again.already_finished
    assert (again.best, again.epochs) == (first.best, first.epochs)
    assert first.test is not None
    assert again.test is not None
    assert again.test.values == first.test.values
    assert {path: path.read_bytes() for path in first.run.rglob("*") if path.is_file()} == before


def test_another_recipe_is_refused_unless_forced(images: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe(images, TRAIN, "train.max_steps=3")
    train(tmp_path / "run", recipe, leave_open=True)
    other = tiny.recipe(images, TRAIN, "train.max_steps=3", "train.batch_size=3")
    with pytest.raises(RunDirError, match=r"train\.batch_size: 4 before, 3 now"):
        train(tmp_path / "run", other, resume=True)
    train(tmp_path / "run", other, resume=True, force=True)
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["forced"][0]["changed"] == ["recipe train.batch_size: 4 before, 3 now"]


def test_a_run_left_open_is_not_tested_and_extends_to_the_whole_run(images: Path, tmp_path: Path) -> None:
    longer = "{batch_size: 4, schedule: constant, phases: [{epochs: 1, lr: 1e-2}, {epochs: 1, lr: 1e-3}]}"
    whole = train(tmp_path / "whole", tiny.recipe(images, longer)).run
    shorter = longer.replace(", {epochs: 1, lr: 1e-3}", "")
    left = train(tmp_path / "run", tiny.recipe(images, shorter), leave_open=True)
    assert left.test is None
    assert not state(left.run)["finished"]
    assert all("split" not in line for line in metrics(left.run))
    train(tmp_path / "run", tiny.recipe(images, longer), resume=True, extend=True)
    assert metrics(left.run) == metrics(whole)
    for which in ("best", "last"):
        weights = f"checkpoints/{which}/model.safetensors"
        assert (left.run / weights).read_bytes() == (whole / weights).read_bytes()
