"""Large folders: each folder is listed once, and work grows linearly with images and classes."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.data.dataset import Source
from finetune.data.holdout.recorded import SplitRecord
from finetune.data.holdout.splits import hold_out_splits
from finetune.data.sources.files.walk import list_folder
from finetune.data.sources.folders import tree
from finetune.data.sources.read import read_source
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection


def large(root: Path, classes: int, images: int) -> Path:
    """Empty files with names of images, evenly spread over classes."""
    for number in range(classes):
        folder = root / f"class {number:05}"
        folder.mkdir(parents=True)
        for image in range(images // classes):
            os.close(os.open(folder / f"{image:04}.jpg", os.O_CREAT | os.O_WRONLY))
    return root


@pytest.fixture
def listed_folders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed."""
    found: list[str] = []
    true = list_folder

    def counted(folder: Any) -> Any:
        found.append(os.fspath(folder))
        return true(folder)

    monkeypatch.setattr(tree, "list_folder", counted)
    return found


def calls(work: Callable[[], Any]) -> int:
    """The number of Python and C functions that ``work`` calls."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def start_up(root: Path) -> Source:
    """The work of a training run on its data up to and including the first batch."""
    source = hold_out_splits(read_source(str(root)), val_fraction=0.1, test_fraction=0.2, seed=0)
    SplitRecord.of(source).to_csv()
    preprocessing = Preprocessing(16, 16, "shorter", "bilinear", (0.5,), (0.5,))
    transform = TrainTransform(AugmentSection(), preprocessing)
    samplers: tuple[Literal["shuffle", "balanced"], ...] = ("shuffle", "balanced")
    for sampler in samplers:
        sampling = Sampling(0, sampler)
        loader = TrainLoader(source.splits["train"], transform, ReadOptions(batch_size=8), sampling)
        assert loader.batches_per_epoch > 1
        next(loader.draws(0))
    return source


@pytest.mark.parametrize(("classes", "images"), [((50, 50), (500, 2000)), ((50, 200), (2000, 2000))])
def test_work_grows_linearly_with_images_and_classes(
    classes: tuple[int, int], images: tuple[int, int], tmp_path: Path
) -> None:
    start_up(large(tmp_path / "warm", 5, 50))
    roots = [large(tmp_path / str(n), classes[n], images[n]) for n in (0, 1)]
    few, many = (calls(partial(start_up, root)) for root in roots)
    factor = max(classes[1] / classes[0], images[1] / images[0])
    assert few < many < factor * 1.1 * few


def test_twenty_thousand_images_in_two_thousand_classes(tmp_path: Path, listed_folders: list[str]) -> None:
    root = large(tmp_path / "large", 2000, 20_000)
    source = start_up(root)
    assert len(listed_folders) == 2001
    assert sum(len(split) for split in source.splits.values()) == 20_000
    assert len(source.classes) == 2000
    counts = np.bincount(source.splits["train"].targets)
    assert counts.min() >= 1
