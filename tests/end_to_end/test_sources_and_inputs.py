"""Own checkpoints as source weights: commands report and record what was loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.model.backbones import create

Cli = Any  # the fixture of tests/conftest.py


@pytest.fixture
def recipe(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
data: {{source: {shapes}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: squeezenet1_1}}
train: {{batch_size: 16, phases: [{{freeze: backbone, epochs: 1, lr: 1e-4}}]}}
"""
    )
    return path


def state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return dict(create("squeezenet1_1").state_dict())


def trained(run: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "checkpoints" / "best" / "model.safetensors")


def test_a_partial_checkpoint_of_another_project(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    """Other names, an extra wrapper, missing layers, two of the wrong shape."""
    source = state()
    foreign = {
        name.replace("features.", "module.basenet.slice1."): value
        for name, value in source.items()
        if not name.startswith(("classifier", "features.12"))
    }
    foreign["module.basenet.slice1.0.weight"] = torch.ones(64, 1, 3, 3)
    foreign["module.basenet.slice1.0.bias"] = torch.ones(7)
    foreign["module.conv_cls.weight"] = torch.ones(3)
    torch.save({"craft": {"state_dict": foreign}, "epoch": 3}, tmp_path / "f.pth")
    weights = f'{{path: {tmp_path / "f.pth"}, rename: {{"basenet.slice1.": "features."}}, min_share: %s}}'
    setting = f"model.weights={weights}"
    ended = cli("train", recipe, "--run-dir", tmp_path / "refused", "--set", setting % 0.9)
    assert ended.code == 2
    assert "At least 90 % are needed (min_share)" in ended.err
    assert not (tmp_path / "refused").exists()

    ended = cli("train", recipe, "--run-dir", tmp_path / "run", "--set", setting % 0.5)
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert report["wrapper"] == "craft.state_dict"
    assert report["origin"] == str(tmp_path / "f.pth")
    assert 0.5 < report["share"] < 0.9
    assert "shape" in report["kept"]["features.0.weight"]
    assert report["kept"]["features.12.squeeze.weight"] == "not in the file"
    assert report["unused"]["module.conv_cls.weight"] == "the network has no such entry"
    assert report["head"] == ["classifier.1.weight", "classifier.1.bias"]
    for part in (
        "features.0.weight: its shape is (64, 1, 3, 3)",
        "features.0.bias: its shape is (7,)",
        "conv_cls",
    ):
        assert part in ended.err
    after = trained(tmp_path / "run")
    assert report["loaded"]
    assert all(torch.equal(after[name], source[name]) for name in report["loaded"])

    again = cli("train", recipe, "--run-dir", tmp_path / "run", "--resume", "--set", setting % 0.5)
    assert again.code == 0, again.err
    onward = cli(
        "train",
        recipe,
        "--run-dir",
        tmp_path / "next",
        "--set",
        f"model.weights={{path: {tmp_path / 'run'}}}",
    )
    assert onward.code == 0, onward.err
    report = json.loads((tmp_path / "next" / "weights.json").read_text())
    assert (report["share"], report["kept"]) == (1.0, {})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{path: nowhere.pth}", "model.weights.path: there is no file or run directory 'nowhere.pth'"),
        ("{path: default}", "model.weights.path: there is no file or run directory 'default'"),
        ("{path: a.pth, renmae: {}}", "model.weights.renmae: unknown key. Did you mean 'rename'?"),
        ("{path: a.pth, min_share: 2}", "model.weights.min_share: must be a number from 0 to 1"),
        ("{rename: {}}", "model.weights.path: missing"),
        ("{path: a.pth, rename: [a, b]}", "model.weights.rename: must be a mapping"),
    ],
)  # fmt: skip
def test_a_wrong_weights_mapping_is_refused(
    recipe: Path, tmp_path: Path, weights: str, message: str, cli: Cli
) -> None:
    ended = cli("train", recipe, "--run-dir", tmp_path / "run", "--set", f"model.weights={weights}")
    assert ended.code == 2
    assert message in ended.err


@pytest.mark.parametrize("channels", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_train_eval_predict_and_export_with_other_channels(
    shapes: Path, tmp_path: Path, channels: int, cli: Cli
) -> None:
    pytest.importorskip("onnxruntime")
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(
        f"""\
data: {{source: {shapes}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: efficientnet_lite0, in_channels: {channels}}}
train:
  batch_size: 16
  augment: {{crop: random_resized, rotation: 5, color_jitter: {{brightness: 0.1}}}}
  phases: [{{freeze: backbone, epochs: 1, lr: 1e-3}}]
"""
    )
    ended = cli("train", recipe, "--run-dir", run)
    assert ended.code == 0, ended.err
    assert f"3 channels became {channels}" in ended.err
    assert ("converted to grey" if channels == 1 else "the colours repeat") in ended.err
    card = json.loads((run / "checkpoints" / "best" / "card.json").read_text())
    assert card["architecture"]["in_channels"] == channels
    assert len(card["preprocessing"]["mean"]) == channels
    assert cli("eval", run).code == 0
    for kind in ("onnx", "safetensors", "pt2"):
        ended = cli("export", run, "--format", kind)
        assert ended.code == 0, ended.err
    for model in (run, run / "export" / "model.onnx"):
        ended = cli("predict", model, shapes / "test", "--jsonl")
        assert ended.code == 0, ended.err
        assert len(ended.out.splitlines()) == 12


def test_two_channels_are_refused(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("train", recipe, "--run-dir", tmp_path / "run", "--set", "model.in_channels=2")
    assert ended.code == 2
    assert "model.in_channels: must be 1 (grey), 3 (colour) or more" in ended.err


def test_a_runs_classes_are_reused(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    """From one run to the next, by name, with dropout in the head."""
    lite = ("--set", "model.backbone=efficientnet_lite0")
    ended = cli("train", recipe, "--run-dir", tmp_path / "a", *lite, "--set", "model.head.dropout=0.1")
    assert ended.code == 0, ended.err
    onward = (*lite, "--set", f"model.weights={tmp_path / 'a'}", "--set")
    ended = cli("train", recipe, "--run-dir", tmp_path / "b", *onward, "model.head.reuse=auto")
    assert ended.code == 0, ended.err
    assert "head.reuse: disc from disc (0), square from square (1)" in ended.err
    report = json.loads((tmp_path / "b" / "weights.json").read_text())
    assert report["reused"] == {"disc": "disc (0)", "square": "square (1)"}
    for reuse, message in (
        ("{dics: square}", "the data has no class 'dics'. Did you mean 'disc'?"),
        ("yes", "model.head.reuse: must be auto, or a mapping, or null"),
        ("{disc: -1}", "model.head.reuse.disc"),
    ):
        ended = cli("train", recipe, "--run-dir", tmp_path / "c", *onward, f"model.head.reuse={reuse}")
        assert ended.code == 2
        assert message in ended.err
    ended = cli("train", recipe, "--run-dir", tmp_path / "d", *onward, "model.head.reuse=auto", "--smoke")
    assert ended.code == 0, ended.err


def test_auxiliary_classifiers_through_training_and_export(recipe: Path, tmp_path: Path, cli: Cli) -> None:
    pytest.importorskip("onnxruntime")
    run, settings = tmp_path / "run", ("model.backbone=googlenet", "model.weights=none", "train.ema=0.9")
    ended = cli("train", recipe, "--run-dir", run, *(word for one in settings for word in ("--set", one)))
    assert ended.code == 0, ended.err
    assert trained(run)["aux1.fc2.weight"].shape == (2, 1024)
    assert cli("eval", run).code == 0
    for kind in ("onnx", "pt2"):
        ended = cli("export", run, "--format", kind)
        assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv1_100", 32), pytest.param("crossvit_tiny_240", 240, marks=pytest.mark.slow)],
)
def test_train_eval_predict_and_export_with_timm(
    recipe: Path, tmp_path: Path, name: str, size: int, cli: Cli
) -> None:
    """A backbone that can be traced, and one that cannot."""
    pytest.importorskip("timm")
    pytest.importorskip("onnxruntime")
    run = tmp_path / "run"
    settings = (
        f"model.backbone=timm:{name}",
        "model.weights=none",
        f"data.image_size={size}",
        "data.resize=auto",
    )
    words = [word for one in settings for word in ("--set", one)]
    ended = cli("train", recipe, "--run-dir", run, *words)
    assert ended.code == 0, ended.err
    assert ("cannot be traced" in ended.err) == (name != "mobilenetv1_100")
    ended = cli("export", run, "--format", "onnx")
    assert ended.code == 0, ended.err
    assert cli("layers", f"timm:{name}").code == 0
