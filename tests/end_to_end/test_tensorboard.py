"""``train --tensorboard`` writes curves, also for a run that replaces another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
data: {source: drawn, image_size: 32, resize: 32}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train: {batch_size: 8, phases: [{epochs: 2}]}
"""


def curve(run: Path, name: str) -> list[int]:
    """The epochs of the points of a curve."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return [event.step for event in found.Scalars(name)]


def test_tensorboard_curves_are_written(chdir_tmp: Path, cli: Callable[..., Any]) -> None:
    Path("r.yaml").write_text(RECIPE)
    for option in ("--resume", "--overwrite"):
        ended = cli("train", "r.yaml", "--tensorboard", option, "--device", "cpu")
        assert ended.code == 0, ended.err
        assert curve(Path("runs/r"), "val/top1") == [1, 2]
    longer = ("--resume", "--extend", "--set", "train.phases.0.epochs=3", "--device", "cpu")
    extended = cli("train", "r.yaml", "--tensorboard", *longer)
    assert extended.code == 0, extended.err
    assert curve(Path("runs/r"), "train/loss") == [1, 2, 3]
