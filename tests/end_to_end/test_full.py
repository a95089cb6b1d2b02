"""One tiny run, from a folder of images to a deployed model, and every file that it writes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

Cli = Any  # the fixture of tests/conftest.py

RECIPE = """\
# A comment that stays in the run's copy.
seed: 3
data: {{source: {source}, image_size: 32, resize: 36, workers: 0}}
model: {{backbone: resnet18, weights: none, head: {{dropout: 0.1}}}}
train:
  batch_size: 6
  optimizer: {optimizer}
  momentum: 0.9
  ema: 0.9
  accumulate: 2
  warmup_epochs: 0.4
  label_smoothing: 0.1
  augment: {{crop: random_resized, scale: [0.5, 1.0], flip: true, mixup_alpha: 0.2}}
  checkpoint_every_steps: 2
  phases:
    - {{freeze: backbone, epochs: 1, lr: 1e-2}}
    - {{freeze: layer3.1, epochs: 2, lr: 1e-3, head_lr_mult: 10}}
"""

CHECKPOINT = {"card.json", "manifest.json", "model.safetensors"}
BEST = CHECKPOINT | {"novelty.safetensors", "score.json", "val.safetensors"}
LAST = CHECKPOINT | {"optimizer.safetensors", "raw.safetensors", "state.json"}
RUN_FILES = (
    {
        ".lock",
        "recipe.yaml",
        "resolved.yaml",
        "environment.json",
        "metrics.jsonl",
        "timing.jsonl",
        "curves.png",
        "splits.csv",
    }
    | {f"checkpoints/best/{name}" for name in BEST}
    | {f"checkpoints/{which}/{name}" for which in ("last", "last.previous") for name in LAST}
)


def files(run: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of a run."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def promised_bits(run: Path) -> dict[str, str]:
    """The files whose bits a resumed run shares with an uninterrupted one."""
    found = files(run)
    return {
        name: digest
        for name, digest in found.items()
        if name in ("metrics.jsonl", "curves.png")
        or name.startswith(("checkpoints/best/", "checkpoints/last/"))
    }


@pytest.fixture(scope="module")
def recipe(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "shapes.yaml"
    path.write_text(RECIPE.format(source=shapes, optimizer="adamw"))
    return path


def train(recipe: Path, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "finetune", "train", str(recipe), "--run-dir", str(run), *options],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made by the installed command in a separate process."""
    path = tmp_path_factory.mktemp("runs") / "shapes"
    ended = train(recipe, path)
    assert ended.returncode == 0, ended.stderr
    assert "test top-1" in ended.stdout
    assert str(path) in ended.stdout
    assert f"eval {path}" in ended.stderr
    return path


def test_a_run_has_the_documented_files(run: Path, recipe: Path) -> None:
    assert set(files(run)) == RUN_FILES
    assert (run / "recipe.yaml").read_bytes() == recipe.read_bytes()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("epoch") for line in lines[:3]] == [1, 2, 3]
    assert [line["phase"] for line in lines[:3]] == [0, 1, 1]
    assert lines[3]["split"] == "test"
    assert lines[3]["test_n"] == 12
    assert lines[3]["epoch"] in (1, 2, 3)
    assert all(line["val_n"] == 12 for line in lines[:3])


def test_weight_files_contain_no_time_and_no_path(run: Path) -> None:
    for path in run.rglob("*.safetensors"):
        size = int.from_bytes(path.read_bytes()[:8], "little")
        assert "__metadata__" not in json.loads(path.read_bytes()[8 : 8 + size])


def test_the_resolved_recipe_repeats_the_run(run: Path, cli: Cli) -> None:
    shown = cli("recipe", "show", "--resolved", run / "resolved.yaml")
    assert shown.code == 0
    assert "auto" not in [line.split(": ")[-1] for line in shown.out.splitlines() if "resize" in line]


def test_resume_leaves_a_finished_run_unchanged(run: Path, recipe: Path, cli: Cli) -> None:
    before = files(run)
    ended = cli("train", recipe, "--run-dir", run, "--resume", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "finished" in ended.err
    assert files(run) == before
    ended = cli("train", recipe, "--run-dir", run)
    assert ended.code == 2
    assert "--resume" in ended.err
    assert files(run) == before


def test_a_changed_recipe_is_not_resumed(run: Path, recipe: Path, cli: Cli) -> None:
    ended = cli("train", recipe, "--run-dir", run, "--resume", "--set", "train.phases.1.lr=2e-3")
    assert ended.code == 2
    assert "train.phases[1].lr: 0.001 before, 0.002 now" in ended.err


def test_eval_agrees_with_training(run: Path, cli: Cli, tmp_path: Path) -> None:
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    ended = cli("eval", run, "--json", "--predictions", tmp_path / "p.csv")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    for name in ("top1", "top1_low", "top1_high", "loss", "n"):
        assert report[name] == pytest.approx(last[f"test_{name}"])
    assert report["split"] == "test"
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 13
    assert cli("eval", run, "--min-top1", "0.0").code == 0
    if report["top1"] < 1:
        assert cli("eval", run, "--min-top1", "1.0").code == 1


def test_predictions_of_run_and_export_agree(run: Path, shapes: Path, cli: Cli) -> None:
    pytest.importorskip("onnxruntime")
    ended = cli("export", run, "--format", "onnx")
    assert ended.code == 0, ended.err
    exported = run / "export" / "model.onnx"
    ours, theirs = (
        [json.loads(line) for line in cli("predict", model, shapes / "test", "--jsonl").out.splitlines()]
        for model in (run, exported)
    )
    assert len(ours) == 12
    for a, b in zip(ours, theirs, strict=True):
        assert (a["path"], a["class"]) == (b["path"], b["class"])
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
    (exported).unlink()
    exported.parent.rmdir()


def test_a_run_resumed_after_each_kind_of_stop_is_bit_identical(
    run: Path, recipe: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle of an epoch, then kill -9, then to the end."""
    path = tmp_path / "stopped"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune", "train", str(recipe), "--run-dir", str(path), "--resume"],
            stderr=subprocess.PIPE,
            env=environment,
        )
        _wait_for_progress(path)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        # Such a short run may end before the signal arrives.
        if process.returncode == 0:
            break
        assert process.returncode == expected, err.decode()
    ended = train(recipe, path, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert promised_bits(path) == promised_bits(run)
    assert set(files(path)) == RUN_FILES


def _wait_for_progress(run: Path) -> None:
    """Wait for a new checkpoint, at most a minute."""
    state = run / "checkpoints" / "last" / "state.json"

    def stamp() -> int:
        try:
            return state.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    before, deadline = stamp(), time.monotonic() + 60
    while stamp() == before and time.monotonic() < deadline:
        time.sleep(0.002)


def test_another_seed_gives_other_weights(run: Path, recipe: Path, tmp_path: Path) -> None:
    ended = train(recipe, tmp_path / "other", "--set", "seed=4")
    assert ended.returncode == 0, ended.stderr
    assert promised_bits(tmp_path / "other") != promised_bits(run)
