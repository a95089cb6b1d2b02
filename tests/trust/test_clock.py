"""A clock that goes back does not affect training, saving and caching."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Seconds, at each call.
STEP = -3600.0


def test_a_clock_that_is_set_back_changes_nothing(
    recipe: Callable[..., Path], tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(more="").read_text().replace("{where: off}", "{where: disk, decoded: disk}")
    path = tmp_path / "kept.yaml"
    path.write_text(given.replace("resnet18", "shufflenet_v2_x0_5").replace("epochs: 1", "epochs: 2"))
    runs = tmp_path / "steady", tmp_path / "set"
    assert cli("train", path, "--run-dir", runs[0], "--device", "cpu").code == 0
    now, calls = time.time(), itertools.count(1)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now + STEP * next(calls))
        patch.setattr(time, "time_ns", lambda: int(1e9 * (now + STEP * next(calls))))
        ended = cli("train", path, "--run-dir", runs[1], "--device", "cpu")
        assert ended.code == 0, ended.err
        assert cli("train", path, "--run-dir", runs[1], "--device", "cpu", "--resume").code == 0
        assert cli("eval", runs[1], "--device", "cpu").code == 0
        assert cli("cache", "info").code == 0
    assert "cannot" not in ended.err
    for name in ("best", "last"):
        one, other = (run / "checkpoints" / name / "model.safetensors" for run in runs)
        assert one.read_bytes() == other.read_bytes()
