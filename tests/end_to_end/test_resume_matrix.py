"""A run killed at any moment and resumed in a new process is bit-identical to an uninterrupted one.

The kills here fall on chosen points; `scripts/kill-storm` lets them fall at random, on any recipe.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """\
seed: 5
data: {source: SOURCE, image_size: 32, resize: 36, workers: 2}
model: {backbone: BACKBONE, weights: none, head: {dropout: 0.2}}
train:
  batch_size: 8
  checkpoint_every_steps: 2
"""
AUGMENT = "  augment: {crop: random_resized, flip: true, mixup_alpha: 0.2}\n"

# Each recipe is trained without and with kills. Both backbones have stochastic depth.
RECIPES = {
    "phases, EMA, accumulation, warm-up, two optimizers": (
        "efficientnet_lite0",
        """\
  ema: 0.9
  accumulate: 2
  warmup_epochs: 0.4
  phases:
    - {freeze: backbone, epochs: 1}
    - {freeze: 6, epochs: 1}
    - {freeze: none, epochs: 2, optimizer: sgd}
""",
    ),
    "one cycle, early stopping": (
        "resnet18",
        """\
  optimizer: sgd
  schedule: one_cycle
  early_stopping: 1
  phases: [{freeze: layer2.0, epochs: 5, lr: 1e-2}]
""",
    ),
    "balanced, clipping, smoothing": (
        "convnext_tiny",
        """\
  sampler: balanced
  select: balanced_accuracy
  grad_clip_norm: 1.0
  label_smoothing: 0.1
  phases: [{freeze: none, epochs: 2, lr: 1e-3}]
""",
    ),
    "cached features, two views": (
        "shufflenet_v2_x0_5",
        """  augment: {crop: random_resized, flip: true, views: 2}
  phases: [{freeze: backbone, epochs: 4, lr: 1e-2}, {freeze: 9, epochs: 3}]
cache: {where: memory}
""",
    ),
}

# Views go through the frozen layers in bf16, val images in fp32.
RECIPES["bf16, frozen layers"] = (
    "mobilenet_v3_small",
    """\
  precision: bf16
  memory_format: contiguous
  ema: 0.9
  augment: {flip: true, crop: random_resized}
  phases: [{freeze: 3, epochs: 2, lr: 1e-3}, {freeze: none, epochs: 1}]
""",
)

# `last` is saved every ten seconds, here only at the end of a phase.
RARE_SAVES = "cached features, rare saves"
RECIPES[RARE_SAVES] = (
    "shufflenet_v2_x0_5",
    "  ema: 0.9\n" + RECIPES["cached features, two views"][1],
)

# The moment of a kill: the n-th call of a function within the process.
POINTS = {
    "in a save, at a flush": ("os", "fsync", 14),
    "between the renames": ("finetune.checkpoint.storage", "_swap", 3),
    "between last and best": ("finetune.training.session", "Session.save_best", 1),
    "in a step": ("finetune.training.steps.loop", "key", 3),
    "in val": ("finetune.training.session", "evaluate", 1),
    "in a later val": ("finetune.training.session", "evaluate", 6),
    "while the metrics are cut back": ("finetune.training.run.directory", "write_atomic", 1),
    "at a flush of the folder": ("finetune.checkpoint.storage", "sync", 9),
    "in test": ("finetune.training.session", "load_weights", 1),
}

# One process imports torch and computes nothing; each part of a run is a fork of it.
DRIVER = """
import importlib, json, os, signal, sys
from finetune.cli.main import main
import finetune.training.fit

def killed_at(module, name, count):
    owner = importlib.import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []

    def counted(*words, **options):
        calls.append(None)
        if len(calls) == count:
            if name == "_swap":  # half of it
                words[1].rename(words[1].with_name(words[1].name + ".previous")) if not words[1].with_name(
                    words[1].name + ".previous").exists() and words[1].exists() else None
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **options)

    setattr(owner, name, counted)

results = []
for argv, point in json.loads(sys.stdin.read()):
    child = os.fork()
    if not child:
        sys.argv = ["finetune", *argv]
        if point:
            killed_at(*point)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 70
        sys.stderr.flush()
        os._exit(code)
    results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print("CODES", json.dumps(results))
"""


def codes(parts: list[tuple[list[str], tuple[str, str, int] | None]]) -> tuple[list[int], str]:
    """Run the parts in order. Returns their exit codes and their stderr."""
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(parts),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.rpartition("CODES")[2]), ended.stderr


def promised_bits(run: Path) -> dict[str, str]:
    files = (run / "metrics.jsonl", *run.glob("checkpoints/best/*"), *run.glob("checkpoints/last/*"))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check(recipe_name: str, points: list[str], source: Path, folder: Path) -> None:
    backbone, more = RECIPES[recipe_name]
    recipe = folder / "recipe.yaml"
    given = more if "augment" in more else AUGMENT + more
    text = RECIPE.replace("SOURCE", str(source)).replace("BACKBONE", backbone)
    if recipe_name == RARE_SAVES:
        text = text.replace("  checkpoint_every_steps: 2\n", "")
    recipe.write_text(text + given)

    def train(run: str) -> list[str]:
        return ["train", str(recipe), "--run-dir", str(folder / run), "--resume", "--device", "cpu"]

    ended, err = codes(
        [
            (train("whole"), None),
            *((train("killed"), POINTS[name]) for name in points),
            (train("killed"), None),
        ]
    )
    assert (ended[0], ended[-1]) == (0, 0), err
    assert set(ended[1:-1]) <= {-9, 0}, err
    assert ended[1] == -9
    assert promised_bits(folder / "killed") == promised_bits(folder / "whole")
    assert len(promised_bits(folder / "whole")) >= 10
    assert not list((folder / "killed").rglob(".tmp-*"))


def test_killed_in_a_save_and_between_saves(shapes: Path, tmp_path: Path) -> None:
    points = ["in a save, at a flush", "between last and best", "in a step"]
    check("phases, EMA, accumulation, warm-up, two optimizers", points, shapes, tmp_path)


@pytest.mark.slow  # "cached features, rare saves" is killed in the everyday run
def test_killed_with_cached_features(shapes: Path, tmp_path: Path) -> None:
    check("cached features, two views", ["in a save, at a flush", "in val"], shapes, tmp_path)


def test_killed_under_bf16(shapes: Path, tmp_path: Path) -> None:
    check("bf16, frozen layers", ["in a step", "between last and best", "in a later val"], shapes, tmp_path)


def test_killed_with_rare_saves(shapes: Path, tmp_path: Path) -> None:
    check(RARE_SAVES, ["in a later val", "between last and best", "in val"], shapes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_everywhere(recipe: str, shapes: Path, tmp_path: Path) -> None:
    check(recipe, [*POINTS, *POINTS], shapes, tmp_path)
