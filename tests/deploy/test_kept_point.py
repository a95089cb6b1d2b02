"""A working point that a run keeps: chosen, applied by predict, the ONNX file and eval, cleared, outdated."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finetune
import tiny
from finetune.checkpoint.storage import CARD, MODEL, VAL, read_document, read_tensors, save_checkpoint
from finetune.deploy.export import export
from finetune.training.trained import load_trained

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)


@pytest.fixture
def kept(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that may keep a working point."""
    return Path(shutil.copytree(tiny_run, tmp_path / "kept"))


@pytest.fixture
def test_images(shapes: Path) -> list[str]:
    return [str(path) for path in sorted((shapes / "test").rglob("*.png"))]


def save_again(run: Path, changed: dict[str, dict[str, torch.Tensor]]) -> None:
    """Save the best checkpoint of a run again, with some of its files changed."""
    folder = run / "checkpoints" / "best"
    tensors = {path.name: read_tensors(path) for path in folder.glob("*.safetensors")}
    documents = {CARD: read_document(folder / CARD)}
    save_checkpoint(run / "checkpoints", "best", tensors | changed, documents, keep_previous=False)


def probabilities(model: finetune.Model, images: list[str]) -> np.ndarray:
    """(N,) of the class disc."""
    return np.array([dict(each.ranking())["disc"] for each in model.predict(images)])


def test_a_threshold_is_kept_shown_applied_and_cleared(cli: Cli, kept: Path, test_images: list[str]) -> None:
    before = probabilities(finetune.load(kept), test_images)
    at = float(np.median(before)) + 1e-4
    ended = cli("threshold", kept, "--class", "disc", "--at", f"{at:.17g}", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["working_point"] == {"class": "disc", "threshold": at}
    assert found["file"] == str(kept / "working_point.json")
    assert found["val"]["images_of_class"] == 6
    assert json.loads(cli("threshold", kept, "--json").out) == found
    assert "decides      'disc' from" in cli("threshold", kept).out

    predictions = finetune.load(kept).predict(test_images, top=1)
    assert [each.label == "disc" for each in predictions] == (before >= at).tolist()
    overruled = [each for each in predictions if each.is_overruled]
    assert overruled  # otherwise the test shows nothing
    for each in predictions:
        value = each.to_dict()
        assert value["class"] == each.label == each.decided
        assert value["top"][0]["class"] == each.classes[0]
        assert ("decided" in value) == (each.classes[0] != each.label)

    assert cli("threshold", kept, "--clear").out.startswith("removed")
    assert cli("threshold", kept, "--clear").out.startswith("there was none")
    assert "most probable class" in cli("threshold", kept).out
    assert not any(each.decided for each in finetune.load(kept).predict(test_images))


def test_a_threshold_for_a_recall_is_chosen_on_val_and_measured_on_test(cli: Cli, kept: Path) -> None:
    asked = json.loads(cli("eval", kept, "--json", "--class", "disc", "--recall", "0.8").out)["working_point"]
    assert asked["goal"] == {"recall": 0.8}
    assert asked["val"]["recall"]["value"] >= 0.8
    assert (asked["split"], asked["kept"], asked["measured"]["n"]) == ("test", False, 12)
    ended = cli("threshold", kept, "--class", "disc", "--recall", "0.8", "--json")
    chosen = json.loads(ended.out)
    assert chosen["working_point"] == {
        "class": "disc", "threshold": asked["threshold"], "goal": {"recall": 0.8}
    }  # fmt: skip
    assert chosen["val"] == asked["val"]
    assert "measures it on test" in ended.err
    again = json.loads(cli("eval", kept, "--json").out)["working_point"]
    assert again == asked | {"kept": True}
    text = cli("eval", kept).out
    assert "'disc' against the rest, kept with the run" in text
    assert "of the most probable class" in text
    api = finetune.load(kept).evaluate("test")
    assert api.working_point().to_dict() == again  # type: ignore[union-attr]
    assert api.working_point("disc", recall=0.8).to_dict() == asked  # type: ignore[union-attr]


def test_the_onnx_file_decides_as_the_run_does(
    cli: Cli, kept: Path, tmp_path: Path, test_images: list[str]
) -> None:
    at = float(np.median(1 - probabilities(finetune.load(kept), test_images)))
    finetune.load(kept).keep_working_point("square", at=at + 1e-4)
    file = tmp_path / "model.onnx"
    export(load_trained(kept), "onnx", file)
    labels = [each.label for each in finetune.load(kept).predict(test_images)]
    assert len(set(labels)) == 2
    exported = finetune.load(file)
    assert exported.card.decision.working_point == finetune.load(kept).card.decision.working_point
    assert [each.label for each in exported.predict(test_images, batch_size=5)] == labels

    ended = cli(
        "predict", file, *test_images, "--csv", tmp_path / "out.csv", "--move-into", tmp_path / "sorted"
    )
    assert ended.code == 0, ended.err
    assert "decides 'square' from" in ended.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == labels
    assert {row["class_2"] for row in rows} == {"disc", "square"}
    assert all(row["decided"] in ("", row["class"]) for row in rows)
    placed = {path.name: path.parent.name for path in (tmp_path / "sorted").glob("*/*.png")}
    assert placed == {Path(path).name: label for path, label in zip(test_images, labels, strict=True)}


def test_costs_are_kept_applied_and_measured(
    cli: Cli, kept: Path, tmp_path: Path, test_images: list[str]
) -> None:
    file = tmp_path / "costs.yaml"
    file.write_text("costs: {disc: {square: 30}}\n")
    before = probabilities(finetune.load(kept), test_images)
    asked = json.loads(cli("eval", kept, "--json", "--costs", file).out)["working_point"]
    assert asked["costs"] == {"disc": {"square": 30}}
    ended = cli("threshold", kept, "--costs", file)
    assert ended.code == 0, ended.err
    assert "30: 'disc' taken for 'square'" in ended.out
    assert "mean cost" in ended.out
    assert json.loads(cli("eval", kept, "--json").out)["working_point"] == asked | {"kept": True}
    labels = [each.label for each in finetune.load(kept).predict(test_images)]
    # The expected cost of square is 30 p, that of disc is 1 - p.
    assert labels == ["disc" if 30 * p >= 1 - p else "square" for p in before]
    table = cli("predict", kept, *test_images)
    assert "decides by the least expected cost: 'disc' taken for 'square' costs 30" in table.err


def test_a_threshold_of_other_weights_is_not_applied(cli: Cli, kept: Path, test_images: list[str]) -> None:
    finetune.load(kept).keep_working_point("disc", at=0.0)
    assert {each.label for each in finetune.load(kept).predict(test_images)} == {"disc"}
    weights = read_tensors(kept / "checkpoints" / "best" / MODEL)
    weights["fc.bias"] += 0.01
    save_again(kept, {MODEL: weights})
    ended = cli("predict", kept, *test_images)
    assert "was chosen with other weights, and is not applied" in ended.err
    assert "decides" not in ended.err
    assert "working_point" not in json.loads(cli("eval", kept, "--json").out)
    # Nor to the other checkpoint.
    assert "belongs to the best checkpoint" in cli("eval", kept, "--checkpoint", "last").err


def test_a_damaged_file_is_refused_until_it_is_replaced(cli: Cli, kept: Path) -> None:
    (kept / "working_point.json").write_text('{"format": 1, "working_point": {}}')
    ended = cli("eval", kept)
    assert ended.code == 2
    assert "--clear" in ended.err
    assert cli("threshold", kept, "--clear").code == 0
    assert cli("eval", kept).code == 0


def test_a_model_in_memory_decides_at_once_and_exports_do_not_lag(kept: Path, test_images: list[str]) -> None:
    model = finetune.load(kept)
    point = model.keep_working_point("disc", at=0.0)
    assert {each.label for each in model.predict(test_images)} == {"disc"}
    assert model.kept_working_point() == point
    assert model.clear_working_point()
    assert not any(each.is_overruled for each in model.predict(test_images))
    assert model.kept_working_point() is None


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("threshold", ["--class", "dics", "--recall", "0.9"], "unknown class 'dics'. Did you mean 'disc'?"),
        ("threshold", ["--class", "disc", "--recall", "95"], "For 95 % write 0.95."),
        ("threshold", ["--class", "disc", "--recall", "nan"], "must be a fraction"),
        ("threshold", ["--class", "disc", "--at", "-1"], "must be a fraction from 0 to 1"),
        ("threshold", ["--class", "disc", "--recall", "0.9", "--precision", "0.9"], "give only one of them"),
        ("threshold", ["--recall", "0.9"], "name the class"),
        ("threshold", ["--class", "disc"], "goes with --recall, --precision or --at"),
        ("threshold", ["--class", "disc", "--costs", "costs.yaml"], "costs name all classes"),
        ("threshold", ["--clear", "--class", "disc"], "--clear"),
        ("threshold", ["--costs", "costs.yaml"], "costs.yaml: cannot be read"),
        ("eval", ["--class", "dics"], "unknown class 'dics'. Did you mean 'disc'?"),
        ("eval", ["--class", "disc", "--precision", "95"], "For 95 % write 0.95."),
        ("eval", ["--precision", "0.9"], "name the class"),
        (
            "eval",
            ["--class", "disc", "--precision", "fast"],
            "must be fp32 or bf16, or with --class a fraction",
        ),
        ("eval", ["--curves", "c.png"], "--curves"),
        ("eval", ["--class", "disc", "--curves", "c.txt"], "unknown figure format"),
    ],
)
def test_wrong_input_is_exit_2(
    command: str, arguments: list[str], message: str, cli: Cli, tiny_run: Path, chdir_tmp: Path
) -> None:
    ended = cli(command, tiny_run, *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert not (tiny_run / "working_point.json").exists()


def test_a_goal_out_of_reach_keeps_nothing_and_says_the_best(cli: Cli, kept: Path) -> None:
    # Of the three images of val that look most like a disc, the first is none.
    logits = np.array([[4, 0], [3, 0], [2, 0], [0, 1], [0, 2]], np.float32)
    save_again(kept, {VAL: {"logits": torch.from_numpy(logits), "targets": torch.tensor([1, 0, 0, 1, 1])}})
    ended = cli("threshold", kept, "--class", "disc", "--precision", "0.9")
    assert ended.code == 2
    assert (
        "no threshold of 'disc' reaches a precision of at least 90 % on val. The best is 66.7 %" in ended.err
    )
    assert "with a recall of 100.0 %" in ended.err
    assert not (kept / "working_point.json").exists()
    assert cli("threshold", kept, "--class", "disc", "--precision", "0.6").code == 0


def test_a_folder_that_is_no_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert "not a run directory" in cli("threshold", tmp_path).err
    assert cli("threshold", tmp_path / "gone", "--clear").code == 2
