"""``finetune compare``: the same images, differences and tests, curves and cost; training from scratch."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import UserError
from finetune.recipe.load import parse_recipe
from finetune.strategy.experiments.compare import from_scratch

RECIPE = """\
seed: {seed}
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: {weights}}}
train: {{batch_size: 16, phases: [{{freeze: none, epochs: {epochs}, lr: 1e-3}}]}}
"""


@pytest.fixture
def write(chdir_tmp: Path, shapes: Path) -> Any:
    def recipe(name: str, **changes: Any) -> Path:
        values = {"source": shapes, "weights": "none", "epochs": 1, "seed": 0}
        path = chdir_tmp / f"{name}.yaml"
        path.write_text(RECIPE.format(**values | changes))
        return path

    return recipe


def test_recipes_and_runs(write: Any, chdir_tmp: Path, cli: Any) -> None:
    short, longer = write("short"), write("longer", epochs=2, seed=4)
    ended = cli("compare", short, longer, "--json", "--device", "cpu")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert [run["run"] for run in answer["runs"]] == ["runs/short", "runs/longer"]
    assert [run["epochs"] for run in answer["runs"]] == [1, 2]
    assert [run["images"] for run in answer["runs"]] == [32, 64]
    assert all(run["seconds"] > 0 and run["n"] == 12 and run["split"] == "test" for run in answer["runs"])
    (pair,) = answer["pairs"]
    first, second = (run["top1"] for run in answer["runs"])
    assert pair["difference"] == pytest.approx(second - first)
    assert pair["low"] <= pair["difference"] <= pair["high"]
    assert 0 < pair["p"] <= 1
    assert Path(answer["plot"]).read_bytes().startswith(b"\x89PNG")
    # Once more: nothing is trained again, and eval says the same.
    before = {path: path.stat().st_mtime_ns for path in (chdir_tmp / "runs/short").rglob("*")}
    ended = cli("compare", short, "runs/longer", "--plot", "x.png", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "nothing was done" in ended.err
    assert "McNemar" in ended.out
    assert Path("x.png").is_file()
    after = {path: path.stat().st_mtime_ns for path in (chdir_tmp / "runs/short").rglob("*")}
    assert {path for path in before if before[path] != after.get(path)} <= {chdir_tmp / "runs/short"}
    measured = json.loads(cli("eval", "runs/longer", "--json", "--device", "cpu").out)
    assert measured["top1"] == second


def test_other_images_are_refused(write: Any, chdir_tmp: Path, cli: Any, shapes: Path) -> None:
    trained = shapes / "train"
    one, two = write("one", source=trained), write("two", source=trained, seed=1)
    ended = cli("compare", one, two, "--device", "cpu")
    assert ended.code == 2
    assert "same images" in ended.err
    assert "seed" in ended.err


def test_scratch(write: Any, chdir_tmp: Path, cli: Any) -> None:
    assert cli("train", write("source"), "--device", "cpu").code == 0
    tuned = write("tuned", weights="runs/source")
    ended = cli("compare", tuned, "--against", "scratch", "--json", "--device", "cpu")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert [run["run"] for run in answer["runs"]] == ["runs/tuned", "runs/tuned-scratch"]
    resolved = parse_recipe((chdir_tmp / "runs/tuned-scratch/resolved.yaml").read_bytes(), "resolved.yaml")
    assert resolved.model.weights == "none"
    assert resolved.train.phases[0].lr == pytest.approx(1e-2)
    assert Path(answer["plot"]).is_file()


def test_from_scratch_removes_every_setting_that_refers_to_a_source() -> None:
    recipe = parse_recipe(
        """
        data: {source: digits, image_size: 64}
        model: {backbone: resnet18, batchnorm: frozen, head: {reuse: auto, dropout: 0.1}}
        train:
          l2_sp: {}
          phases:
            - {freeze: backbone, epochs: 2, lr: 3e-3}
            - {freeze: 4, epochs: 3, lr: 2e-4, layer_decay: 0.8, head_lr_mult: 5, optimizer: sgd}
        """,
        "r.yaml",
    )
    scratch = from_scratch(recipe)
    assert scratch.model.weights == "none"
    assert (scratch.model.batchnorm, scratch.model.head.reuse) == ("train", None)
    assert scratch.train.l2_sp is None
    assert [phase.weight_decay for phase in scratch.train.phases] == [1e-2, 1e-4]
    assert [phase.freeze for phase in scratch.train.phases] == ["none", "none"]
    assert [phase.lr for phase in scratch.train.phases] == pytest.approx([1e-3, 2e-3])
    assert {phase.head_lr_mult for phase in scratch.train.phases} == {1.0}
    assert {phase.layer_decay for phase in scratch.train.phases} == {None}
    # And what is no part of the question is as it was.
    assert scratch.data == recipe.data
    assert scratch.seed == recipe.seed
    assert scratch.model.head.dropout == 0.1
    assert [phase.epochs for phase in scratch.train.phases] == [2, 3]
    with pytest.raises(UserError, match="already"):
        from_scratch(scratch)


@pytest.mark.parametrize(
    "words",
    [
        ("only.yaml",),
        ("a.yaml", "b.yaml", "--against", "scratch"),
        ("a.yaml", "a.yaml"),
        ("a.yaml", "nothing.yaml"),
        (".", "a.yaml"),
        ("a.yaml", "b.yaml", "--set", "train.batchsize=2"),
    ],
    ids=" ".join,
)
def test_runs_that_cannot_be_compared_are_refused(
    write: Any, cli: Any, chdir_tmp: Path, words: tuple[str, ...]
) -> None:
    write("a")
    write("b")
    ended = cli("compare", *words)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert not (chdir_tmp / "runs").exists()
