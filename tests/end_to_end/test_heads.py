"""Other types of heads, from a recipe to every export format."""

import json
from pathlib import Path
from typing import Any

import pytest

Cli = Any  # the fixture of tests/conftest.py

RECIPE = """
data: {{source: {source}, image_size: 64, workers: 0}}
model: {{backbone: {backbone}, weights: none, head: {head}}}
train:
  batch_size: 16
  ema: 0.9
  phases: [{{freeze: 1, epochs: 1, layer_decay: 0.8}}]
"""


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet18", "{at: layer2.0, hidden: 6, dropout: 0.1}"),
        ("mobilenet_v3_small", "{type: cosine, scale: 8, learn_scale: false}"),
    ],
)
def test_train_predict_export(backbone: str, head: str, shapes: Path, tmp_path: Path, cli: Cli) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(source=shapes, backbone=backbone, head=head))
    ended = cli("train", recipe, "--run-dir", run, "--device", "cpu")
    assert ended.code == 0, ended.err
    ended = cli("eval", run, "--json")
    assert ended.code == 0, ended.err
    for format in ("onnx", "pt2", "safetensors"):
        ended = cli("export", run, "--format", format)
        assert ended.code == 0, ended.err
    image = shapes / "test" / "disc" / "disc_00.png"
    ours, theirs = (
        json.loads(cli("predict", model, image, "--jsonl").out)
        for model in (run, run / "export" / "model.onnx")
    )
    assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-4)
