"""Probes: the saved run predicts what scikit-learn predicts."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.evaluation.evaluate import collect_logits
from finetune.recipe.load import parse_recipe
from finetune.strategy.probing import probe as strategy
from finetune.strategy.probing import probe_figure
from finetune.strategy.probing.frozen_features import features_of
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.session import Session
from finetune.training.trained import load_trained

RECIPE = """\
seed: 5
data: {{source: {source}, image_size: 32, resize: 36, workers: 0}}
model: {{backbone: shufflenet_v2_x0_5, weights: none, head: {{dropout: 0.2}}}}
train: {{batch_size: 8, threads: 1, phases: [{{freeze: none, epochs: 1}}]}}
"""


@pytest.fixture
def recipe(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(source=shapes))
    return path


@pytest.mark.parametrize("layer", [18, 6])
def test_the_saved_run_predicts_what_scikit_learn_predicts(
    layer: int, recipe: Path, tmp_path: Path, cli: Any
) -> None:
    (depth,) = strategy.probe(parse_recipe(recipe.read_text(), "r.yaml"), [layer], device="cpu")
    assert [row.classifier for row in depth.rows] == ["svm", "logistic", "class_mean", "neighbours"]
    with RunDir.open(tmp_path / "run") as run:
        strategy.save(depth, run, "finetune probe r.yaml")
    trained = load_trained(tmp_path / "run")
    test = depth.setup.source.splits["test"]
    batches = eval_batches(test, trained.card.preprocessing, ReadOptions(8))
    import torch

    ours = collect_logits(trained.module, batches, torch.device("cpu")).logits.argmax(1)
    features, *_ = features_of(depth.setup, "test")
    assert np.array_equal(ours, depth.winner.predict(features))
    report = json.loads(cli("eval", tmp_path / "run", "--json").out)
    assert report["n"] == 12
    assert cli("predict", tmp_path / "run", test.name(0)).code == 0
    again = cli("train", recipe, "--run-dir", tmp_path / "run", "--resume", "--set", "seed=5")
    assert again.code == 2  # another recipe's run


def test_the_command(recipe: Path, chdir_tmp: Path, cli: Any) -> None:
    tmp_path, drawing = chdir_tmp, chdir_tmp / "depth.png"
    ended = cli("probe", recipe, "--layers", "4,18", "--json", "--plot", drawing, "--run-dir", tmp_path / "w")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert [row["layer"] for row in rows] == [4] * 4 + [18] * 4
    assert drawing.stat().st_size > 1000
    assert (tmp_path / "w" / "checkpoints" / "best").is_dir()
    first = (tmp_path / "w" / "recipe.yaml").read_text().splitlines()[0]
    assert first.startswith("# finetune probe")
    assert cli("probe", recipe, "--layers", "19").code == 2
    assert cli("probe", recipe, "--layers", "deep").code == 2
    assert cli("probe", tmp_path / "nothing").code == 2
    assert cli("probe", recipe, "--run-dir", tmp_path / "w").code == 2  # not replaced without --overwrite
    assert not (tmp_path / "runs" / "r-probe").exists()


def test_a_probe_replaces_the_one_before(recipe: Path, chdir_tmp: Path, cli: Any) -> None:
    for layers in ("4,18", "18"):
        ended = cli("probe", recipe, "--layers", layers)
        assert ended.code == 0, ended.err
    assert (chdir_tmp / "runs" / "r-probe.png").stat().st_size > 1000
    report = json.loads(cli("eval", "runs/r-probe", "--json").out)
    assert report["n"] == 12


def test_a_run_before_and_after(recipe: Path, tmp_path: Path, cli: Any) -> None:
    run = tmp_path / "run"
    assert cli("train", recipe, "--run-dir", run, "--device", "cpu").code == 0
    ended = cli("probe", run, "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert [row["when"] for row in rows] == ["before"] * 4 + ["after"] * 4
    assert cli("probe", run, "--layers", "all").code == 2


def test_the_plot_shows_val_with_its_interval_beside_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(probe_figure, "write_figure", lambda figure, _: drawn.append(figure))

    def row(layer: int, classifier: str, cv: float, val: float) -> strategy.Row:
        return strategy.Row(layer, f"layer{layer}", classifier, "", cv, val, val - 0.1, val + 0.05, 50)

    rows = [
        row(3, "svm", 0.7, 0.6), row(3, "logistic", 0.8, 0.5), row(3, "neighbours", 0.95, 0.9),
        row(7, "svm", 0.9, 0.8), row(7, "logistic", 0.8, 0.85), row(7, "neighbours", 0.5, 0.4),
    ]  # fmt: skip
    probe_figure.plot(rows, "a $net$", tmp_path / "x.png")
    (axes,) = drawn[0].axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    assert lines["linear SVM"] == pytest.approx([70, 90])
    (val,) = axes.containers
    assert "(n = 50)" in val.get_label()
    # Of each layer, the linear classifier that cross-validation prefers, not the one that val prefers.
    assert [list(each[:, 1]) for each in val.lines[2][0].get_segments()] == [
        pytest.approx([40, 55]),
        pytest.approx([70, 85]),
    ]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3\nlayer3", "7\nlayer7"]


class Cut(BaseException):
    """Simulates a kill or a signal."""


def test_a_probe_that_is_stopped_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stops, there is either no run or one that `train --resume` can finish."""
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (8, 4), "val": (3, 3), "test": (3, 3)})
    text = RECIPE.format(source=source).replace("shufflenet_v2_x0_5", tiny.STANDS_FOR)
    (depth,) = strategy.probe(parse_recipe(text, "r.yaml"), device="cpu")
    writing: list[tuple[Any, str]] = [(RunDir, "begin"), (RunDir, "append")]
    writing += [(Session, name) for name in ("evaluate", "save_last", "save_best", "finish")]

    def saved(run: Path, at: int) -> bool:
        """Whether the probe was saved before the ``at``-th of these calls."""
        calls = itertools.count(1)

        def cut(function: Any) -> Any:
            def counted(*words: Any, **options: Any) -> Any:
                if next(calls) == at:
                    raise Cut
                return function(*words, **options)

            return counted

        with monkeypatch.context() as patch, RunDir.open(run) as opened:
            for owner, name in writing:
                patch.setattr(owner, name, cut(getattr(owner, name)))
            try:
                strategy.save(depth, opened, "finetune probe r.yaml")
            except Cut:
                return False
        return True

    whole = tmp_path / "whole"
    assert saved(whole, 0)
    expected = (whole / "metrics.jsonl").read_text().splitlines()
    assert len(expected) == 2
    begun = 0
    for at in itertools.count(1):
        run = tmp_path / f"cut-{at}"
        if saved(run, at):
            break
        if not (run / "resolved.yaml").is_file():
            continue
        begun += 1
        had_state = (run / "checkpoints" / "last").is_dir()
        with RunDir.open(run, resume=True) as opened:
            recipe = parse_recipe((run / "recipe.yaml").read_bytes(), "recipe.yaml")
            result = fit(recipe, opened, device="cpu", continuation=Continuation(resume=True))
        assert result.epochs == 1
        load_trained(run)
        if had_state:
            assert (run / "metrics.jsonl").read_text().splitlines() == expected
    assert begun > 4
