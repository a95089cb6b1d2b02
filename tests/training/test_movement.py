"""How far layers moved: against a closed form, and through the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from finetune.errors import RunDirError
from finetune.model.build import build
from finetune.recipe.load import load_recipe, parse_recipe
from finetune.training.fit import fit
from finetune.training.movement import movement
from finetune.training.run.directory import RunDir
from finetune.training.trained import load_trained

RECIPE = """
seed: 5
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: resnet18, weights: {weights}, head: {{init: {init}}}}}
train:
  batch_size: 16
  optimizer: sgd
  phases: [{{freeze: 3, epochs: 1, lr: 1e-2, head_lr_mult: 10}}]
"""


def train(path: Path, **values: Any) -> Path:
    with RunDir.open(path) as directory:
        fit(parse_recipe(RECIPE.format(**values), "recipe.yaml"), directory, device="cpu")
    return path


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("moved") / "run", source=shapes, weights="none", init="xavier")


def test_movement_has_its_closed_form(run: Path) -> None:
    recipe = load_recipe(run / "resolved.yaml")
    start = build(recipe.model, 2, seed=recipe.seed, image_size=32)
    now = load_trained(run).module
    found = movement(run)
    assert [each.number for each in found] == list(range(1, 11))
    assert [each.is_head for each in found] == [False] * 9 + [True]
    for each, layer in zip(found, start.table.layers, strict=True):
        w0, w = (
            torch.cat([module.get_parameter(name).detach().flatten().double() for name in layer.parameters])
            for module in (start.module, now)
        )
        assert each.moved == pytest.approx(float((w - w0).norm() / w0.norm()), rel=1e-4)
        assert (each.moved == 0.0) is (each.number <= 3)


def test_the_command_prints_and_plots_it(run: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    image = tmp_path / "moved.png"
    ended = cli("layers", run, "--json", "--plot", image, "--checkpoint", "last")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert [row["head"] for row in rows] == [False] * 9 + [True]
    assert rows[0]["moved"] == 0.0 < rows[8]["moved"]
    assert image.read_bytes().startswith(b"\x89PNG")
    shown = cli("layers", run).out.splitlines()
    assert shown[0].split()[:4] == ["#", "layer", "parameters", "moved"]
    assert shown[1].split() == ["1", "conv1", "9,536", "0.0000"]
    assert len(shown) == 11
    ended = cli("layers", run, "--plot", tmp_path / "moved.nonsense")
    assert ended.code == 2
    assert "moved.nonsense: unknown figure format" in ended.err


def test_a_start_of_zero_has_no_ratio(shapes: Path, tmp_path: Path) -> None:
    found = movement(train(tmp_path / "run", source=shapes, weights="none", init="zero"))
    assert found[-1].moved is None
    assert found[-2].moved


def test_a_missing_or_changed_start_is_an_error(shapes: Path, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    recipe = parse_recipe(RECIPE.format(source="digits", weights="none", init="xavier"), "recipe.yaml")
    tensors = dict(build(recipe.model, 1000, seed=1).module.state_dict())
    safetensors.torch.save_file(tensors, weights)
    run = train(tmp_path / "run", source=shapes, weights=weights, init="xavier")
    assert movement(run)[0].moved == 0.0
    safetensors.torch.save_file(tensors | {"conv1.weight": tensors["conv1.weight"] * 2}, weights)
    with pytest.raises(RunDirError, match="have changed since it started"):
        movement(run)
    weights.unlink()
    with pytest.raises(RunDirError, match="cannot be loaded any more"):
        movement(run)
