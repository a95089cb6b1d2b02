"""Warnings before a run starts."""

from pathlib import Path

import pytest

import tiny
from finetune.training.run_plan import warn_before_training


@pytest.mark.parametrize("freeze", ["2", "none"])
def test_freezing_layers_with_initial_values_is_warned_of(
    freeze: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (2, 2), "val": (2, 2)})
    warn_before_training(tiny.setup(tiny.recipe(source, f"{{phases: [{{freeze: {freeze}}}]}}")))
    warning = "2 of the first 2 layers hold initial values: no weights were loaded into them (blocks.0"
    assert (warning in caplog.text) == (freeze == "2")
