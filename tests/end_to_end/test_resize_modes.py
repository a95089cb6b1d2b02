"""``data.resize_mode`` works alike everywhere, from the recipe to an exported file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from finetune.image.decode import open_rgb
from finetune.training.trained import load_trained

Cli = Callable[..., Any]
RECIPE = """
data: {source: photos, image_size: 32, resize_mode: MODE, workers: 0, val_fraction: 0.25}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train:
  batch_size: 8
  augment: {crop: random_resized, scale: [0.5, 1.0], flip: true}
  phases: [{epochs: 2, lr: 0.01}]
"""


def long_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for index in range(12):
            noise = rng.integers(0, 256, (20, 90, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{index}.png")


def logits(run: Path, image: Path) -> torch.Tensor:
    """The bits of the network's output for an image."""
    trained = load_trained(run)
    seen = torch.from_numpy(trained.card.preprocessing(open_rgb(image)))
    with torch.inference_mode():
        return trained.module(seen[None])


def same_in_onnx(run: Path, cli: Cli) -> None:
    assert cli("export", run, "--format", "onnx").code == 0
    of_run, of_onnx = (
        [json.loads(line) for line in cli("predict", model, "photos/cat", "--jsonl").out.splitlines()]
        for model in (run, run / "export" / "model.onnx")
    )
    assert len(of_run) == len(of_onnx) == 12
    for mine, theirs in zip(of_run, of_onnx, strict=True):
        assert mine["class"] == theirs["class"]
        assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-4)


@pytest.mark.parametrize("mode", ["pad", "squash"])
def test_a_run_and_its_export_resize_alike(mode: str, chdir_tmp: Path, cli: Cli) -> None:
    long_images(chdir_tmp / "photos")
    Path("recipe.yaml").write_text(RECIPE.replace("MODE", mode))
    ended = cli("train", "recipe.yaml")
    assert ended.code == 0, ended.err
    assert {"pad": "32 px (whole, longer side to 32, the rest filled", "squash": "32 px (squashed to "}[
        mode
    ] in ended.err
    run = Path("runs/recipe")
    resolved = yaml.safe_load((run / "resolved.yaml").read_text())["data"]
    assert resolved["resize_mode"] == mode
    if mode == "pad":
        assert resolved["resize"] == 32
    assert (
        json.loads((run / "checkpoints/best/card.json").read_text())["preprocessing"]["resize_mode"] == mode
    )
    if mode == "pad":
        same_in_onnx(run, cli)
    # The ends of an image affect the result; a centre crop would remove them.
    path = Path("photos/cat/0.png")
    before = logits(run, path)
    pixels = np.array(Image.open(path))
    pixels[:, :20], pixels[:, -20:] = 0, 255
    Image.fromarray(pixels).save(path)
    assert not torch.equal(logits(run, path), before)
    # The next run starts from these weights and preprocesses alike.
    Path("next.yaml").write_text(
        RECIPE.replace(", resize_mode: MODE", "").replace("weights: none", f"weights: {run}")
    )
    ended = cli("train", "next.yaml", "--set", "train.max_steps=1")
    assert ended.code == 0, ended.err
    assert {"pad": "the rest filled", "squash": "squashed"}[mode] in ended.err


@pytest.mark.parametrize("given", ["image_size: 32, resize: 40", "resize: 4000"])
def test_padding_cannot_crop(given: str, chdir_tmp: Path, cli: Cli) -> None:
    long_images(chdir_tmp / "photos")
    Path("recipe.yaml").write_text(RECIPE.replace("image_size: 32", given).replace("MODE", "pad"))
    ended = cli("train", "recipe.yaml")
    assert ended.code == 2
    assert "data.resize" in ended.err
    assert "at most" in ended.err
    assert not Path("runs").exists()


def test_caching_does_not_change_the_result(chdir_tmp: Path, cli: Cli) -> None:
    """Caches of decoded images and of features."""
    long_images(chdir_tmp / "photos")
    text = RECIPE.replace("MODE", "pad").replace("{epochs: 2, lr: 0.01}", "{epochs: 2, freeze: 4}")
    text = text.replace("flip: true", "flip: true, views: 2")
    weights = []
    for number, cache in enumerate(("{where: 'off', decoded: 'off'}", "{where: disk, decoded: disk}")):
        for crop in ("random_resized", "none"):
            name = f"recipe{number}{crop}.yaml"
            Path(name).write_text(f"{text.replace('random_resized', crop)}cache: {cache}\n")
            ended = cli("train", name)
            assert ended.code == 0, ended.err
            saved = Path("runs") / Path(name).stem / "checkpoints" / "last" / "model.safetensors"
            weights.append(saved.read_bytes())
    assert weights[0] == weights[2]
    assert weights[1] == weights[3]
    assert weights[0] != weights[1]
