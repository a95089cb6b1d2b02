"""Every command works for grey images, for more than three channels, and for batches of one image."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHANNELS = (1, 3, 4, 6)
RECIPE = """\
data: {source: SOURCE, image_size: 40, resize: 40, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none, in_channels: CHANNELS}
train: {batch_size: 1, max_steps: 2, augment: {flip: true, random_erasing: 0.5}, phases: [{epochs: 1}]}
"""
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "a convolution as the head": ("model.backbone=squeezenet1_1",),
    "frozen BatchNorm, at 32 px": ("model.batchnorm=frozen", "data.image_size=32"),
    "a frozen prefix": ("train.phases.0.freeze=4",),
    "cached features": ("train.phases.0.freeze=backbone", "train.augment={views: 2}", "cache.where=memory"),
    "solved": ("train.phases.0={freeze: backbone, optimizer: lbfgs}", "train.augment={}"),
    "a shorter network": ("model.head.at=6",),
    "EMA and mixup": ("train.ema=0.9", "train.augment.mixup_alpha=0.2"),
    "in bf16": ("train.precision=bf16",),
    "auto": ("train.batch_size=auto",),
}


def slow(channels: int) -> Any:
    return pytest.param(channels, marks=pytest.mark.slow)


@pytest.fixture
def recipe(tmp_path: Path, shapes: Path) -> Callable[[int], Path]:
    def write(channels: int) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE.replace("SOURCE", str(shapes)).replace("CHANNELS", str(channels)))
        return path

    return write


@pytest.mark.parametrize("channels", [slow(1), 4, slow(6)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training(
    variant: str, channels: int, recipe: Callable[[int], Path], tmp_path: Path, cli: Any
) -> None:
    changes = [word for change in VARIANTS[variant] for word in ("--set", change)]
    ended = cli("train", recipe(channels), "--run-dir", tmp_path / "run", "--device", "cpu", *changes)
    assert ended.code == 0, ended.err
    card = json.loads((tmp_path / "run" / "checkpoints" / "best" / "card.json").read_text())
    assert len(card["preprocessing"]["mean"]) == channels


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_batchnorm_that_sees_one_value_is_refused(
    channels: int, recipe: Callable[[int], Path], tmp_path: Path, cli: Any
) -> None:
    words = ("--run-dir", tmp_path / "run", "--device", "cpu", "--set", "data.image_size=32")
    ended = cli("train", recipe(channels), *words)
    assert ended.code == 2, ended.err
    assert "a single value per channel at 32 px" in ended.err


@pytest.mark.parametrize("channels", [1, slow(3), slow(4), slow(6)])
def test_every_other_command(
    channels: int, recipe: Callable[[int], Path], shapes: Path, tmp_path: Path, cli: Any
) -> None:
    path, run = recipe(channels), tmp_path / "run"

    def works(*words: Any) -> str:
        ended = cli(*words)
        assert ended.code == 0, ended.err
        return str(ended.out)

    works("train", path, "--smoke", "--run-dir", tmp_path / "smoke")
    works("train", path, "--run-dir", run, "--device", "cpu")
    top1 = json.loads(works("eval", run, "--json", "--device", "cpu"))["top1"]
    assert json.loads(works("eval", run, "--json", "--split", "val"))["n"] == 12
    works("lr", path, "--set", "train.batch_size=2")
    image = shapes / "test" / "disc" / "disc_00.png"
    by_torch = json.loads(works("predict", run, image, "--jsonl"))
    for kind in ("onnx", "pt2", "safetensors"):
        works("export", run, "--format", kind)
    by_onnx = json.loads(works("predict", run / "export" / "model.onnx", image, "--jsonl"))
    assert by_onnx["class"] == by_torch["class"]
    assert by_onnx["probability"] == pytest.approx(by_torch["probability"], abs=1e-4)
    assert 0 <= top1 <= 1
