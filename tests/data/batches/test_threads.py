"""Threads that decode images: the same batches, a bounded number of images ahead, no thread left."""

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data.batches import reading
from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.data.dataset import Split
from finetune.data.images import FileImages, JoinedImages, TorchvisionImages, select_images
from finetune.image.decode import suppress_warnings
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection

PREPROCESSING = Preprocessing(16, 18, "shorter", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
COUNT = 41


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """JPEGs of many sizes, two of which cannot be read."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.jpg" for index in range(COUNT)]
    for index, path in enumerate(paths):
        height, width = random.integers(20, 400, 2)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        if index in (3, 17):
            path.write_bytes(path.read_bytes()[: 400 + index])
    return Split(FileImages(paths), np.arange(COUNT) % 3)


class Watched:
    """Images that record how many are open at once, and in which threads."""

    def __init__(self, images: Any, *, thread_safe: bool = True) -> None:
        self.images, self.thread_safe = images, thread_safe
        self.lock, self.begun, self.threads = threading.Lock(), 0, set[int]()

    def __len__(self) -> int:
        return len(self.images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.images, name)

    def open(self, index: int, shorter: int | None = None) -> Image.Image:
        with self.lock:
            self.begun += 1
            self.threads.add(threading.get_ident())
        time.sleep(0.001)
        return self.images.open(index, shorter)


def epoch(
    split: Split, monkeypatch: pytest.MonkeyPatch, threads: int, large: int = 1
) -> tuple[list[Any], list[str]]:
    monkeypatch.setattr(reading, "cores", lambda: threads)
    monkeypatch.setattr(reading, "LARGE_FILE", large)
    augment = AugmentSection(crop="random_resized", flip=True, random_erasing=0.5)
    transform = TrainTransform(augment, PREPROCESSING)
    loader = TrainLoader(split, transform, ReadOptions(9, on_bad_image="skip"), Sampling(5))
    batches = list(loader.epoch(0))
    return [(each.images, each.labels, each.indices) for each in batches], [
        str(bad) for each in batches for bad in each.bad
    ]


def test_batches_do_not_depend_on_the_number_of_threads(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.get_rng_state()
    alone, bad = epoch(split, monkeypatch, 1)
    assert len(bad) == 2
    for threads in (2, 3, 8):
        found, also_bad = epoch(split, monkeypatch, threads)
        assert also_bad == bad
        for (images, labels, indices), (others, their_labels, their_indices) in zip(
            alone, found, strict=True
        ):
            assert torch.equal(images, others)
            assert torch.equal(labels, their_labels)
            assert indices == their_indices
    assert torch.equal(torch.get_rng_state(), state)


def test_a_bounded_number_of_images_is_held_ahead(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of large photos, decoded at full size, would fill the memory."""
    watched = Watched(split.images)
    seen: list[int] = []
    drawn = TrainTransform.view

    def view(self: TrainTransform, base: Any, key: int) -> Any:
        time.sleep(0.003)
        seen.append(watched.begun - len(seen))
        return drawn(self, base, key)

    monkeypatch.setattr(TrainTransform, "view", view)
    epoch(Split(watched, split.targets), monkeypatch, 2)
    assert len(watched.threads) >= 2
    # Two bad images are submitted and never fetched.
    assert 2 < max(seen) <= reading.AHEAD * 2 + 2 + 2


def test_foreign_code_runs_in_one_thread(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(split.images, thread_safe=False)
    epoch(Split(watched, split.targets), monkeypatch, 4)
    assert watched.threads == {threading.get_ident()}


def test_small_images_are_decoded_by_one_thread(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(split.images)
    epoch(Split(watched, split.targets), monkeypatch, 4, large=100_000)
    assert watched.threads == {threading.get_ident()}


def test_which_images_threads_may_open(split: Split) -> None:
    files, foreign = split.images, TorchvisionImages([], "set")
    assert files.thread_safe
    assert not foreign.thread_safe
    assert select_images(files, [1]).thread_safe
    assert not select_images(foreign, []).thread_safe
    assert not JoinedImages([files, foreign]).thread_safe
    assert JoinedImages([files, files]).thread_safe


def test_warnings_return_after_the_last_reader() -> None:
    before = list(warnings.filters)
    inside, go_on = threading.Event(), threading.Event()

    def read() -> None:
        with suppress_warnings():
            inside.set()
            go_on.wait(5)

    with suppress_warnings():
        reader = threading.Thread(target=read)
        reader.start()
        assert inside.wait(5)
        warnings.warn("nobody sees this", UserWarning, stacklevel=1)
        go_on.set()
        reader.join()
        warnings.warn("nor this", UserWarning, stacklevel=1)
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="but this"):
        warnings.warn("but this", UserWarning, stacklevel=1)
