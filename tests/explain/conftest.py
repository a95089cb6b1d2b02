"""A tiny run on drawn shapes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of a tiny network, to be read only: 32, 12 and 12 images of two classes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tiny.stand_in(patch)
        with RunDir.open(folder) as run_dir:
            text = "{batch_size: 8, precision: fp32, phases: [{epochs: 1, lr: 0.01}]}"
            fit(tiny.recipe(shapes, text), run_dir, device="cpu")
        yield folder
