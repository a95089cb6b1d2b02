"""Wrong input: exit code 2, one message with place and remedy, no traceback, no files left."""

from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32}}
model: {{backbone: {backbone}, weights: {weights}}}
train: {{phases: [{{freeze: {freeze}, epochs: 1}}]}}
"""


@pytest.fixture
def write(chdir_tmp: Path, shapes: Path) -> Any:
    def recipe(**changes: str) -> Path:
        values = {"source": str(shapes), "backbone": "resnet18", "weights": "none", "freeze": "none"}
        path = chdir_tmp / "recipe.yaml"
        path.write_text(RECIPE.format(**values | changes))
        return path

    return recipe


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "photso"}, ["photso", "no such"]),
        ({"source": "digtis"}, ["Did you mean 'digits'"]),
        ({"source": "torchvision:CIFAR1O"}, ["CIFAR10"]),
        ({"backbone": "resnet81"}, ["recipe.yaml:2:", "resnet81", "Did you mean"]),
        ({"weights": "IMAGENET1K_V9"}, ["IMAGENET1K_V1"]),
        ({"weights": "nowhere/model.pth"}, ["nowhere/model.pth"]),
        ({"freeze": "10"}, ["10", "9"]),
        ({"freeze": "-1"}, ["recipe.yaml:3:"]),
        ({"freeze": "layer1.7"}, ["layer1.7", "finetune layers"]),
        ({"freeze": "fc"}, ["fc"]),
    ],
    ids=lambda value: "-".join(f"{k}-{v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_recipes(write: Any, cli: Any, chdir_tmp: Path, changes: dict[str, str], words: list[str]) -> None:
    ended = cli("train", write(**changes), "--device", "cpu")
    assert ended.code == 2, ended.err
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert not (chdir_tmp / "runs" / "recipe").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("train", "nothing.yaml"),
        ("train", "."),
        ("train", "recipe.yaml", "--device", "gpu"),
        ("train", "recipe.yaml", "--set", "train.batchsize=3"),
        ("train", "recipe.yaml", "--resume", "--overwrite"),
        ("train", "recipe.yaml", "--set", "train.precision=fp16", "--device", "cpu"),
        ("eval", "nothing"),
        ("eval", "."),
        ("predict", "nothing", "x.jpg"),
        ("predict", "recipe.yaml", "x.jpg"),
        ("export", "nothing"),
        ("export", "nothing", "--format", "tflite"),
        ("layers", "resnet81"),
        ("backbones", "--max-params", "many"),
        ("recipe", "show", "nothing.yaml"),
        ("recipe", "validate", "nothing.yaml", "recipe.yaml"),
        ("recipe", "new", "-o", "recipe.yaml"),
    ],
    ids=" ".join,
)
def test_commands(write: Any, cli: Any, chdir_tmp: Path, command: tuple[str, ...]) -> None:
    recipe = write()
    before = recipe.read_bytes()
    ended = cli(*command)
    assert ended.code == 2, ended.err
    assert ended.err.strip()
    assert "Traceback" not in ended.err
    assert recipe.read_bytes() == before
    assert [path.name for path in chdir_tmp.iterdir() if path.name != "runs"] == ["recipe.yaml"]


def test_a_message_names_every_fault_at_once(cli: Any, chdir_tmp: Path) -> None:
    Path("r.yaml").write_text("data: {sourse: x}\nmodel: {backbone: resnet81}\ntrain: {batch_size: -3}\n")
    ended = cli("train", "r.yaml", "--set", "seed=x")
    assert ended.code == 2
    places = [line.split(": ")[0] for line in ended.err.splitlines()]
    assert {"r.yaml:1:8", "r.yaml:2:19", "r.yaml:3:21", "--set seed=x"} <= set(places)
