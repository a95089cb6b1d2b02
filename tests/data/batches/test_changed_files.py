"""A run warns once about images that are replaced while it trains, and reads the new files."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.data.cache.decoded import DecodedCache
from finetune.data.dataset import Split
from finetune.data.images import FileImages
from finetune.data.sources.named.drawn import draw_source
from finetune.errors import BadImageError
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection

PREPROCESSING = Preprocessing(16, 16, "squash", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for index, path in enumerate(paths):
        Image.new("RGB", (20, 20), (index * 30, 90, 60)).save(path)
    return Split(FileImages(paths), np.arange(6, dtype=np.int64) % 2)


def loader(split: Split, workers: int = 0) -> TrainLoader:
    transform = TrainTransform(AugmentSection(), PREPROCESSING)
    return TrainLoader(split, transform, ReadOptions(2, workers), Sampling(5))


def replaced(path: str) -> None:
    Image.new("RGB", (21, 21), "white").save(path)


def touched(path: str) -> None:
    os.utime(path, ns=(10**18, 10**18))


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = (record.getMessage() for record in caplog.records)
    return [message for message in messages if "changed after the run began" in message]


@pytest.mark.parametrize("change", [replaced, touched])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_a_replaced_image_is_reported_once(
    change: Callable[[str], None], workers: int, cached: bool, split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    made = loader(split, workers=workers)
    made.use_cache(DecodedCache(None, 10**6) if cached else None)
    with caplog.at_level(logging.WARNING, "finetune"):
        list(made.epoch(0))
        assert warned(caplog) == []
        change(split.name(3))
        after = list(made.epoch(1))
        made.epoch(2)
        list(made.epoch(2))
    made.close()
    (said,) = warned(caplog)
    assert said.startswith(f"{split.name(3)}: the file changed")
    # It is read as if it had been there from the beginning.
    fresh = loader(split)
    assert all(
        torch.equal(one.images, other.images) for one, other in zip(after, fresh.epoch(1), strict=True)
    )
    fresh.close()


def test_several_changed_files_are_counted(split: Split, caplog: pytest.LogCaptureFixture) -> None:
    made = loader(split)
    for index in (1, 2, 5):
        replaced(split.name(index))
    with caplog.at_level(logging.WARNING, "finetune"):
        for epoch in range(3):
            list(made.epoch(epoch))
    made.close()
    first, number = warned(caplog)
    assert "the file changed" in first
    assert number.startswith("3 image files")


def test_a_missing_file_is_an_error_with_its_name(split: Split) -> None:
    made = loader(split)
    Path(split.name(4)).unlink()
    with pytest.raises(BadImageError, match=r"4\.png: no such file"):
        list(made.epoch(0))


def test_images_without_files_never_change(caplog: pytest.LogCaptureFixture) -> None:
    made = loader(draw_source(3, 4, 24).splits["train"])
    with caplog.at_level(logging.WARNING, "finetune"):
        list(made.epoch(0))
    made.close()
    assert warned(caplog) == []
