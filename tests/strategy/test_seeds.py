"""``finetune train --seeds``: several runs, their spread, and resuming."""

import shutil
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 16, phases: [{{freeze: none, epochs: 1}}]}}
"""


@pytest.fixture
def recipe(chdir_tmp: Path, shapes: Path) -> Path:
    path = chdir_tmp / "recipe.yaml"
    path.write_text(RECIPE.format(source=shapes))
    return path


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_seeds_are_trained_summarised_and_resumed(recipe: Path, chdir_tmp: Path, cli: Any) -> None:
    ended = cli("train", recipe, "--seeds", "2", "--device", "cpu", "--set", "seed=3")
    assert ended.code == 0, ended.err
    place = chdir_tmp / "runs/recipe"
    assert sorted(path.name for path in place.iterdir()) == ["seed-3", "seed-4"]
    assert "seed-3" in ended.out
    assert "range" in ended.out
    assert "too few runs for an interval of the mean (it takes 3) (2 runs)" in ended.out
    # Not again without --resume or --overwrite.
    ended = cli("train", recipe, "--seeds", "2", "--device", "cpu", "--set", "seed=3")
    assert ended.code == 2
    assert "--resume" in ended.err
    # As if it had been stopped before the second one.
    second = state(place / "seed-4")
    shutil.rmtree(place / "seed-4")
    first = state(place / "seed-3")
    ended = cli("train", recipe, "--seeds", "2", "--resume", "--device", "cpu", "--set", "seed=3")
    assert ended.code == 0, ended.err
    assert state(place / "seed-3") == first
    again = state(place / "seed-4")
    assert again["metrics.jsonl"] == second["metrics.jsonl"]
    weights = "checkpoints/best/model.safetensors"
    assert again[weights] == second[weights] != first[weights]


def test_a_run_directory_is_refused_for_several_runs(recipe: Path, cli: Any) -> None:
    assert cli("train", recipe, "--device", "cpu", "--set", "train.max_steps=1").code == 0
    ended = cli("train", recipe, "--seeds", "2", "--device", "cpu")
    assert ended.code == 2
    assert "single run" in ended.err


def test_conflicting_options_are_refused(recipe: Path, cli: Any) -> None:
    assert cli("train", recipe, "--seeds", "2", "--smoke").code == 2
    assert cli("train", recipe, "--seeds", "0").code == 2
