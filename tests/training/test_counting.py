"""Epochs are counted through all phases; solving a head is one epoch."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train:
  batch_size: 16
  phases:
{phases}
"""
SOLVED = "    - {freeze: backbone, optimizer: lbfgs, weight_decay: 1e-2}"
TUNED = "    - {freeze: 8, epochs: 2, optimizer: sgd, lr: 1e-3}"
# The phases, the length in the report, and the ends of the titles of the phases.
CASES = {
    "solved": ([SOLVED], "1 step that solves the head: 1 epoch", ["epoch 1"]),
    "tuned": ([TUNED], "4 steps of 16 images: 2 epochs", ["2 epochs"]),
    "solved, then tuned": (
        [SOLVED, TUNED],
        "4 steps of 16 images, and 1 step that solves the head: 3 epochs",
        ["epoch 1", "2 epochs (2 to 3)"],
    ),
    "tuned, then solved": (
        [TUNED, SOLVED],
        "4 steps of 16 images, and 1 step that solves the head: 3 epochs",
        ["2 epochs", "epoch 3"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_all_reports_count_epochs_the_same_way(case: str, shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    phases, length, beginnings = CASES[case]
    Path("r.yaml").write_text(RECIPE.format(source=shapes, phases="\n".join(phases)))
    ended = cli("train", "r.yaml", "--device", "cpu")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in Path("runs/r/metrics.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines if "train_loss" in line]
    assert epochs == list(range(1, len(epochs) + 1))
    assert re.search(rf"^length +{re.escape(length)}$", ended.err, re.MULTILINE)
    assert f" {len(epochs)} epoch" in length
    titles = [line for line in ended.err.splitlines() if " layers frozen, " in line]
    assert len(titles) == len(beginnings)
    for title, said in zip(titles, beginnings, strict=True):
        assert title.endswith((f", {said}", f": {said}"))
    assert f" of {len(epochs)}: val top-1" in ended.out
