"""The curves of a run: what they show, that every finished run has them, and that they cannot fail a run."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.training.curves import History, draw_curves, write_curves
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation

TRAIN = "{batch_size: 8, threads: 1, phases: [{freeze: backbone, epochs: 1}, {freeze: 1, epochs: 2}]}"


def entry(epoch: int, phase: int, top1: float) -> dict[str, Any]:
    return {
        "epoch": epoch, "phase": phase, "train_top1": top1 + 0.05, "train_loss": 1 / epoch,
        "val_top1": top1, "val_loss": 2 / epoch, "val_n": 50,
    }  # fmt: skip


TEST = {"split": "test", "test_top1": 0.91, "test_top1_low": 0.85, "test_top1_high": 0.95, "test_n": 120}
EPOCHS = (entry(1, 0, 0.5), entry(2, 0, 0.7), entry(3, 1, 0.9), entry(4, 1, 0.8))


def points(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    """The lines of axes that have points, by label: where, and values."""
    return {
        str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.lines
        if len(line.get_xdata())
    }


def phases(axes: Any) -> list[float]:
    """Where the axes have vertical lines."""
    return [x[0] for x, y in points(axes).values() if y == [0, 1]]


def test_accuracy_is_in_per_cent_and_phases_best_epoch_and_test_are_marked() -> None:
    figure = draw_curves(History(EPOCHS, TEST), "resnet18", ["backbone", 3], 3)
    accuracy, loss = figure.axes
    assert points(accuracy)["val (n = 50)"][1] == pytest.approx([50, 70, 90, 80])
    assert points(accuracy)["train, as augmented"][1] == pytest.approx([55, 75, 95, 85])
    assert points(accuracy)["best epoch on val: 3"][0] == [3]
    assert points(loss)["val (n = 50)"][1] == pytest.approx([2, 1, 2 / 3, 1 / 2])
    assert phases(accuracy) == phases(loss) == [2.5]
    assert "%" in accuracy.get_ylabel()
    bar: Any = accuracy.containers[0]
    assert list(bar.lines[2][0].get_segments()[0][:, 1]) == pytest.approx([85, 95])
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown >= {"test of that epoch, 95 % interval (n = 120)", "phase 2 begins, 3 layers frozen"}


def test_a_loss_that_exploded_does_not_hide_the_others() -> None:
    def scale(first_loss: float) -> str:
        epochs = (EPOCHS[0] | {"val_loss": first_loss}, *EPOCHS[1:])
        _, loss = draw_curves(History(epochs, TEST), "resnet18", ["none"], 3).axes
        return loss.get_yscale()

    assert (scale(2.0), scale(700.0)) == ("linear", "log")


def test_a_run_without_test_or_train_results(tmp_path: Path) -> None:
    lines = [{"epoch": 1, "phase": 0, "val_top1": 0.5, "val_loss": 0.7, "val_n": 6}]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_curves(tmp_path, "a probe of $x$", ["backbone"], 1)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert History.read(tmp_path).test is None


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.stand_in(monkeypatch)
    return tiny.draw_images(tmp_path / "images", {"train": (12, 12), "val": (4, 4), "test": (4, 4)})


@pytest.mark.curves
def test_every_finished_run_has_curves_with_the_same_bytes(tmp_path: Path, source: Path) -> None:
    recipe = tiny.recipe(source, TRAIN)
    curves = []
    for name in ("one", "other"):
        with RunDir.open(tmp_path / name) as run:
            fit(recipe, run, device="cpu")
        curves.append((tmp_path / name / "curves.png").read_bytes())
    assert curves[0] == curves[1]
    for word in (b"tEXt", b"tIME", b"Matplotlib"):
        assert word not in curves[0]
    longer = tiny.recipe(source, TRAIN.replace("epochs: 2", "epochs: 3"))
    with RunDir.open(tmp_path / "one", resume=True) as run:
        fit(longer, run, device="cpu", continuation=Continuation(resume=True, extend=True))
    assert (tmp_path / "one" / "curves.png").read_bytes() != curves[0]
    with RunDir.open(tmp_path / "one", overwrite=True) as run:
        fit(recipe, run, device="cpu")
    assert (tmp_path / "one" / "curves.png").read_bytes() == curves[0]


@pytest.mark.curves
def test_a_figure_that_fails_does_not_fail_the_run(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("finetune.training.curves.figure_bytes", fail)
    with caplog.at_level(logging.WARNING, "finetune"), RunDir.open(tmp_path / "run") as run:
        result = fit(tiny.recipe(source, TRAIN), run, device="cpu")
    assert result.test is not None
    assert "no fonts" in caplog.text
    assert not (tmp_path / "run" / "curves.png").exists()
