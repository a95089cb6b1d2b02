"""Loaders: batches depend on seed, epoch and number alone, and every failure of a process is handled."""

import dataclasses
import errno
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data.batches import reading
from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import TrainLoader, eval_batches
from finetune.data.batches.mixing import BatchMixer
from finetune.data.batches.options import OnBadImage, ReadOptions, default_workers
from finetune.data.batches.sampling import Sampler, Sampling
from finetune.data.dataset import Split
from finetune.data.images import FileImages
from finetune.data.processes import pool
from finetune.data.processes.worker import in_worker
from finetune.data.sources.named.drawn import draw_source
from finetune.errors import BadImageError, DataError
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection

PREPROCESSING = Preprocessing(16, 18, "shorter", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
MIXER = BatchMixer(1.0, 1.0, 3)


@pytest.fixture(autouse=True)
def _nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_reported", set())


@pytest.fixture(scope="module")
def split() -> Split:
    """21 generated images of three classes."""
    return draw_source(3, 7, 24).splits["train"]


@pytest.fixture
def loader(split: Split) -> Iterator[Callable[..., TrainLoader]]:
    made: list[TrainLoader] = []

    def make(
        own: Split = split,
        *,
        batch_size: int = 4,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        seed: int = 5,
        sampler: Sampler = "shuffle",
        views: int | None = None,
        mixer: BatchMixer | None = None,
    ) -> TrainLoader:
        augment = AugmentSection(crop="random_resized", flip=True, random_erasing=0.5)
        options = ReadOptions(batch_size, workers, on_bad_image)
        transform = TrainTransform(augment, PREPROCESSING)
        made.append(TrainLoader(own, transform, options, Sampling(seed, sampler, views), mixer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def damaged(split: Split, bad: set[int], folder: Path) -> Split:
    """The same images as files; those in ``bad`` cannot be read."""
    paths = [folder / f"{index}.png" for index in range(len(split))]
    for index, path in enumerate(paths):
        split.open(index).save(path)
        if index in bad:
            path.write_bytes(b"gone bad")
    return Split(FileImages(paths), split.targets)


def same(one: Batch, other: Batch) -> bool:
    pairs = ((one.images, other.images), (one.targets, other.targets), (one.labels, other.labels))
    return one.indices == other.indices and all(torch.equal(a, b) for a, b in pairs)


def all_same(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(map(same, some, others))


def views(batches: list[Batch]) -> dict[int, list[bytes]]:
    """The views of each image."""
    found: dict[int, list[bytes]] = {}
    for batch in batches:
        for place, index in enumerate(batch.indices):
            found.setdefault(index, []).append(batch.images[place].numpy().tobytes())
    return found


def test_an_epoch_has_every_image_once(loader: Callable[..., TrainLoader], split: Split) -> None:
    batches = list(loader().epoch(0))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(21))
    for batch in batches:
        assert batch.images.shape == (len(batch.indices), 3, 16, 16)
        assert batch.images.dtype == torch.float32
        assert batch.labels.dtype == batch.targets.dtype == torch.int64
        assert batch.labels.tolist() == [int(split.targets[index]) for index in batch.indices]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (21, 4, [4, 4, 4, 4, 5]),
        (20, 4, [4] * 5),
        (19, 4, [4, 4, 4, 4, 3]),
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (3, 2, [3]),
    ],
)
def test_the_last_batch_is_never_a_single_image(
    count: int, batch_size: int, sizes: list[int], loader: Callable[..., TrainLoader], split: Split
) -> None:
    made = loader(split.subset(np.arange(count)), batch_size=batch_size)
    assert [len(batch.indices) for batch in made.epoch(0)] == sizes
    assert made.batches_per_epoch == len(sizes)


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_batches_are_bit_identical_with_workers(sampler: str, loader: Callable[..., TrainLoader]) -> None:
    plain, working = loader(sampler=sampler, mixer=MIXER), loader(sampler=sampler, mixer=MIXER, workers=2)
    for epoch in (0, 3):
        assert all_same(list(plain.epoch(epoch)), list(working.epoch(epoch)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_a_resumed_epoch_continues_with_the_same_batches(
    workers: int, sampler: str, loader: Callable[..., TrainLoader]
) -> None:
    whole = list(loader(sampler=sampler, mixer=MIXER).epoch(2))
    resumed = loader(sampler=sampler, mixer=MIXER, workers=workers)
    assert all_same(list(resumed.epoch(2, start=3)), whole[3:])
    assert list(resumed.epoch(2, start=len(whole))) == []
    assert all_same(list(resumed.epoch(2)), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unfinished_epoch_has_no_effect(workers: int, loader: Callable[..., TrainLoader]) -> None:
    made = loader(workers=workers)
    left = made.epoch(0)
    next(left)
    assert all_same(list(made.epoch(1)), list(loader().epoch(1)))


def test_batches_do_not_depend_on_earlier_draws(loader: Callable[..., TrainLoader]) -> None:
    torch.manual_seed(1)
    first = list(loader().epoch(1))
    torch.manual_seed(2)
    np.random.seed(3)
    made = loader()
    list(made.epoch(0))
    state = torch.get_rng_state()
    assert all_same(list(made.epoch(1)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_view_does_not_depend_on_its_batch(loader: Callable[..., TrainLoader]) -> None:
    assert views(list(loader(batch_size=4).epoch(2))) == views(list(loader(batch_size=7).epoch(2)))


def test_epochs_and_seeds_differ(loader: Callable[..., TrainLoader]) -> None:
    made = loader()
    zero, one, other = (
        views(list(made.epoch(0))),
        views(list(made.epoch(1))),
        views(list(loader(seed=6).epoch(0))),
    )
    assert all(zero[i] != one[i] and zero[i] != other[i] for i in range(21))


def test_views_repeat_after_that_many_epochs(loader: Callable[..., TrainLoader]) -> None:
    made = loader(views=2)
    seen = [list(made.epoch(epoch)) for epoch in range(4)]
    assert views(seen[0]) == views(seen[2]) != views(seen[1]) == views(seen[3])
    assert [batch.indices for batch in seen[0]] != [batch.indices for batch in seen[2]]


def test_a_balanced_epoch(loader: Callable[..., TrainLoader], split: Split) -> None:
    few = split.subset([*range(7), 7, 14, 15])
    batches = list(loader(few, sampler="balanced").epoch(0))
    labels = [label for batch in batches for label in batch.labels.tolist()]
    assert sorted(labels.count(label) for label in range(3)) == [3, 3, 4]
    # The only image of class 1 is drawn several times, each time as a different view.
    drawn = views(batches)[7]
    assert len(drawn) == len(set(drawn)) >= 3


def test_mixed_targets(loader: Callable[..., TrainLoader]) -> None:
    plain, mixed = list(loader().epoch(0)), list(loader(mixer=MIXER).epoch(0))
    for one, other in zip(plain, mixed, strict=True):
        assert one.indices == other.indices
        assert torch.equal(one.labels, other.labels)
        assert other.targets.shape == (len(other.indices), 3)
        torch.testing.assert_close(other.targets.sum(1), torch.ones(len(other.indices)))
        assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_batches_follow_the_order_of_the_split(workers: int, split: Split) -> None:
    batches = list(eval_batches(split, PREPROCESSING, ReadOptions(5, workers)))
    assert [index for batch in batches for index in batch.indices] == list(range(21))
    assert [len(batch.indices) for batch in batches] == [5, 5, 5, 5, 1]
    images = torch.cat([batch.images for batch in batches])
    for index in range(21):
        np.testing.assert_array_equal(images[index].numpy(), PREPROCESSING(split.open(index)))


def test_an_empty_split(split: Split, loader: Callable[..., TrainLoader]) -> None:
    assert list(eval_batches(split.subset([]), PREPROCESSING, ReadOptions(4, 2))) == []
    with pytest.raises(DataError, match="no images"):
        loader(split.subset([]))


# Bad images.


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_raises_its_own_error(
    workers: int, split: Split, tmp_path: Path, loader: Callable[..., TrainLoader]
) -> None:
    images = damaged(split, {9}, tmp_path)
    for batches in (
        loader(images, workers=workers).epoch(0),
        eval_batches(images, PREPROCESSING, ReadOptions(4, workers)),
    ):
        with pytest.raises(BadImageError) as caught:
            list(batches)
        assert type(caught.value) is BadImageError
        assert caught.value.name == str(tmp_path / "9.png")
        assert "text" in caught.value.reason


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_reported(
    workers: int,
    split: Split,
    tmp_path: Path,
    loader: Callable[..., TrainLoader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = damaged(split, {0, 9}, tmp_path)
    made = loader(images, on_bad_image="skip", workers=workers)
    plain = list(loader().epoch(0))
    with caplog.at_level(logging.WARNING, "finetune"):
        batches = list(made.epoch(0))
        list(made.epoch(1))
    reported = {error.name for batch in batches for error in batch.bad}
    assert reported == {str(tmp_path / "0.png"), str(tmp_path / "9.png")}
    assert sorted(index for batch in batches for index in batch.indices) == sorted({*range(21)} - {0, 9})
    assert len(caplog.records) == 2
    # The other images have the same places and the same views.
    for with_bad, without in zip(batches, plain, strict=True):
        assert with_bad.indices == tuple(i for i in without.indices if i not in (0, 9))
    assert all(views(batches)[i] == views(plain)[i] for i in range(1, 9))


def test_evaluation_reports_skipped_images(split: Split, tmp_path: Path) -> None:
    bad = {0, 1, 2, 3, 9, 20}
    batches = list(
        eval_batches(damaged(split, bad, tmp_path), PREPROCESSING, ReadOptions(4, on_bad_image="skip"))
    )
    assert [len(batch.indices) for batch in batches] == [0, 4, 3, 4, 4, 0]
    assert batches[0].images.shape == (0, 3, 16, 16)
    assert [Path(error.name).name for batch in batches for error in batch.bad] == [
        f"{index}.png" for index in sorted(bad)
    ]


@pytest.mark.parametrize("mixer", [None, MIXER])
def test_batches_keep_their_numbers(
    mixer: BatchMixer | None, split: Split, tmp_path: Path, loader: Callable[..., TrainLoader]
) -> None:
    order = [index for batch in loader().epoch(0) for index in batch.indices]
    # All of the first batch, and all but one of the second.
    images = damaged(split, set(order[:7]), tmp_path)
    made = loader(images, on_bad_image="skip", mixer=mixer)
    batches = list(made.epoch(0))
    assert [len(batch.indices) for batch in batches] == [0, 0, 4, 4, 5]
    assert [len(batch.bad) for batch in batches] == [4, 3, 0, 0, 0]
    assert [len(batch.targets) for batch in batches] == [0, 0, 4, 4, 5]
    assert all_same(list(made.epoch(0, start=1)), batches[1:])


def test_only_bad_images(split: Split, tmp_path: Path, loader: Callable[..., TrainLoader]) -> None:
    images = damaged(split, set(range(21)), tmp_path)
    with pytest.raises(DataError, match="none of the 21 training images"):
        list(loader(images, on_bad_image="skip").epoch(0))


# Processes.


def test_a_reader_can_be_pickled(split: Split) -> None:
    """Loader processes that are not forked receive a pickled reader."""
    transform = TrainTransform(AugmentSection(flip=True), PREPROCESSING)
    reader = reading.Reader(split, transform)
    again = pickle.loads(pickle.dumps(reader))
    requests = [reading.ReadRequest(3, 17), reading.ReadRequest(8, 18)]
    one, other = reader.read(requests), again.read(requests)
    assert one.indices == other.indices == (3, 8)
    assert torch.equal(one.pixels, other.pixels)
    assert torch.equal(one.labels, other.labels)


def test_processes_last_from_epoch_to_epoch_and_end_with_close(loader: Callable[..., TrainLoader]) -> None:
    made = loader(workers=2)
    before = set(multiprocessing.active_children())
    running = made.epoch(0)
    next(running)
    first = set(multiprocessing.active_children()) - before
    assert len(first) == 2
    list(made.epoch(1))
    assert set(multiprocessing.active_children()) - before == first
    made.epoch(2)
    made.close()
    assert set(multiprocessing.active_children()) == before
    assert len(list(made.epoch(0))) == 5


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="signals do not say who sent them here")
def test_processes_ignore_the_signals_of_the_run(loader: Callable[..., TrainLoader], split: Split) -> None:
    made = loader(split.subset(np.tile(np.arange(21), 10)), workers=2)
    before = set(multiprocessing.active_children())
    batches = made.epoch(0)
    count = len(next(batches).indices)
    workers = set(multiprocessing.active_children()) - before
    for worker in workers:
        subprocess.run(["kill", "-INT", str(worker.pid)], check=True)
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    count += sum(len(batch.indices) for batch in batches)
    assert count == 210
    assert all(worker.is_alive() for worker in workers)
    made.close()
    assert not any(worker.is_alive() for worker in workers)


KILLED = """
import multiprocessing, os, signal, time
from finetune.data.sources.named.drawn import draw_source
from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.errors import FinetuneError
from finetune.recipe.schema import AugmentSection

preprocessing = Preprocessing(16, 18, "shorter", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
images = draw_source(2, 300, 24).splits["train"]
transform = TrainTransform(AugmentSection(), preprocessing)
loader = TrainLoader(images, transform, ReadOptions(2, 2), Sampling(0))
try:
    for batch in loader.epoch(0):
        for process in multiprocessing.active_children()[:1]:  # batches that were read before still arrive
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
except FinetuneError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_killed_process_ends_the_run_with_a_message() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=True, timeout=60
    )
    assert "a loader process died" in done.stdout
    assert "data.workers: 0" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="what is patched here reaches forked processes")
@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
@pytest.mark.parametrize("after", [0, 7])
def test_a_shortage_in_a_process_changes_no_bit(
    error: Exception,
    after: int,
    loader: Callable[..., TrainLoader],
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, read, calls = set(multiprocessing.active_children()), reading.Reader._decoded, 0

    def short(self: reading.Reader, request: reading.ReadRequest) -> Any:
        nonlocal calls
        calls += 1
        if in_worker() and calls > after:
            raise error
        return read(self, request)

    monkeypatch.setattr(reading.Reader, "_decoded", short)
    plain, working = loader(mixer=MIXER), loader(mixer=MIXER, workers=2)
    for epoch in (0, 3):
        assert all_same(list(plain.epoch(epoch)), list(working.epoch(epoch)))
    one, other = (list(eval_batches(split, PREPROCESSING, ReadOptions(4, n))) for n in (0, 2))
    assert all_same(one, other)
    assert set(multiprocessing.active_children()) == before
    assert "could not continue" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process")
def test_a_check_can_end_the_wait_for_a_batch(loader: Callable[..., TrainLoader], split: Split) -> None:
    class StopError(Exception):
        pass

    before = set(multiprocessing.active_children())

    def check() -> None:
        for process in set(multiprocessing.active_children()) - before:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
        if set(multiprocessing.active_children()) - before:
            raise StopError

    many = split.subset(np.tile(np.arange(21), 10))
    for batches in (
        loader(many, workers=2).epoch(0, check=check),
        eval_batches(many, PREPROCESSING, ReadOptions(4, 2), check=check),
    ):
        with pytest.raises(StopError):
            list(batches)
        assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (3, 1), (8, 6), (64, 8)])
def test_default_workers(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.data.batches.options.cores", lambda: cores)
    assert default_workers() == workers


def test_a_batch_can_move_to_a_device(split: Split) -> None:
    (batch, *_) = eval_batches(split, PREPROCESSING, ReadOptions(2))
    moved = batch.to("meta")
    assert moved.images.device.type == moved.targets.device.type == moved.labels.device.type == "meta"
    assert moved.indices == batch.indices
    assert [field.name for field in dataclasses.fields(Batch)] == [
        "images",
        "targets",
        "labels",
        "indices",
        "bad",
    ]
