"""A tiny recipe on drawn shapes, one run that the API trained with it, and its ONNX file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import finetune
import tiny

Recipe = dict[str, Any]


@pytest.fixture(scope="module")
def recipe(shapes: Path) -> Iterator[Recipe]:
    """A recipe that trains a tiny network in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.stand_in(patch)
        yield {
            "data": {"source": str(shapes), "image_size": 32, "workers": 0},
            "model": {"backbone": tiny.STANDS_FOR, "weights": "none"},
            "train": {"batch_size": 8, "precision": "fp32", "phases": [{"epochs": 2, "lr": 0.01}]},
        }


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> finetune.Run:
    """A run to be read only."""
    return finetune.train(recipe, tmp_path_factory.mktemp("runs") / "a", device="cpu")


@pytest.fixture(scope="module")
def onnx_file(trained: finetune.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "model.onnx"
    trained.load().export(target)
    return target
