"""Runs of several phases: their learning rates and the state of their optimizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from finetune.model.backbones import blueprint
from finetune.model.layers.find import find_layers
from finetune.recipe.load import parse_recipe
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir

RECIPE = """
seed: 5
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train:
  batch_size: 16
  optimizer: {optimizer}
  schedule: constant
  weight_decay: 0.01
  phases:
    - {{freeze: backbone, epochs: 1, lr: 1e-3, head_lr_mult: 4}}
    - {{freeze: layer3.1, epochs: 2, lr: 1e-3, head_lr_mult: 2, layer_decay: 0.5}}
    - {{freeze: 4, epochs: 1, lr: 1e-4, head_lr_mult: 1, layer_decay: 0.1, weight_decay: 0.0}}
"""
STEPS = 2  # per epoch


def run(path: Path, text: str) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    with RunDir.open(path) as directory:
        fit(parse_recipe(text, "recipe.yaml"), directory, device="cpu")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return lines, safetensors.torch.load_file(path / "checkpoints" / "last" / "optimizer.safetensors")


@pytest.fixture(scope="module")
def adamw(
    shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    return run(tmp_path_factory.mktemp("phases") / "run", RECIPE.format(source=shapes, optimizer="adamw"))


def test_each_phase_has_its_own_rates(adamw: tuple[list[Any], dict[str, torch.Tensor]]) -> None:
    first, second, _, last = (line["lr"] for line in adamw[0] if "epoch" in line and "lr" in line)
    assert set(first.values()) == {4e-3}
    layers = {title.split("/")[0]: rate for title, rate in second.items()}
    assert layers == pytest.approx({"body.8": 5e-4, "body.9": 1e-3, "head": 2e-3})
    layers = {title.split("/")[0]: rate for title, rate in last.items()}
    assert layers == pytest.approx(
        {**{f"body.{n}": 1e-4 * 0.1 ** (9 - n) for n in range(5, 10)}, "head": 1e-4}
    )


def test_optimizer_state_survives_a_change_of_phase(
    adamw: tuple[list[Any], dict[str, torch.Tensor]],
) -> None:
    """AdamW counts the steps of each parameter, through all phases that train it."""
    counts = {name.split("|")[0]: int(t) for name, t in adamw[1].items() if name.endswith("|step")}
    expected: dict[str, Any] = {}
    for layer in find_layers(blueprint("resnet18")).layers[4:]:
        epochs = 4 if layer.number == 10 else 3 if layer.number >= 8 else 1
        expected |= dict.fromkeys(layer.parameters, epochs * STEPS)
    assert counts == expected


def test_the_kind_of_optimizer_may_change_with_the_phase(shapes: Path, tmp_path: Path) -> None:
    text = RECIPE.format(source=shapes, optimizer="sgd").replace(
        "{freeze: 4,", "{freeze: 4, optimizer: adamw,"
    )
    _, state = run(tmp_path / "run", text)
    assert {name.split("|")[1] for name in state} == {"step", "exp_avg", "exp_avg_sq"}
    assert {int(t) for name, t in state.items() if name.endswith("|step")} == {STEPS}
