"""The cache of decoded images: it changes no bit, and never returns stale, incomplete or foreign images."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.data import images as images_module
from finetune.data.batches.batch import Batch
from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampler, Sampling
from finetune.data.cache.decoded import HEADER_BYTES, DecodedCache
from finetune.data.dataset import Split
from finetune.data.images import ArrayImages, FileImages
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection

PREPROCESSING = Preprocessing(24, 28, "shorter", "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CROPPED = AugmentSection(crop="random_resized", flip=True, random_erasing=0.5)
SQUARE = AugmentSection(flip=True, rotation=10.0)
MUCH = 1 << 30


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Nine JPEGs of several sizes, of which one cannot be read."""
    monkeypatch.setattr(images_module, "JUST_NOW_NS", -1)
    rng = np.random.default_rng(0)
    paths = [tmp_path / "images" / f"{n}.jpg" for n in range(9)]
    paths[0].parent.mkdir()
    for n, path in enumerate(paths):
        blocks = Image.fromarray(rng.integers(0, 256, (6 + n, 8, 3), dtype=np.uint8))
        blocks.resize((160 + 10 * n, 120)).save(path)
    paths[4].write_bytes(b"gone bad")
    return Split(FileImages(paths), np.arange(9, dtype=np.int64) % 3)


@pytest.fixture
def loader(split: Split) -> Iterator[Callable[..., TrainLoader]]:
    made: list[TrainLoader] = []

    def make(
        cache: DecodedCache | None = None,
        augment: AugmentSection = CROPPED,
        of: Split = split,
        *,
        workers: int = 0,
        sampler: Sampler = "shuffle",
    ) -> TrainLoader:
        options = ReadOptions(4, workers, on_bad_image="skip")
        transform = TrainTransform(augment, PREPROCESSING)
        made.append(TrainLoader(of, transform, options, Sampling(5, sampler)))
        if cache is not None:
            made[-1].use_cache(cache)
        return made[-1]

    yield make
    for each in made:
        each.close()


def same(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        one.indices == other.indices and torch.equal(one.images, other.images)
        for one, other in zip(some, others, strict=True)
    )


def epochs(loader: TrainLoader, count: int = 3) -> list[Batch]:
    return [batch for epoch in range(count) for batch in loader.epoch(epoch)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that were decoded, in this process."""
    found: list[int] = []
    true = FileImages.open

    def counted(self: FileImages, index: int, shorter: int | None = None) -> Image.Image:
        found.append(index)
        return true(self, index, shorter)

    monkeypatch.setattr(FileImages, "open", counted)
    return found


@pytest.mark.parametrize("augment", [CROPPED, SQUARE])
@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_bit_identical_with_a_cache(
    workers: int, where: str, augment: AugmentSection, loader: Callable[..., TrainLoader], tmp_path: Path
) -> None:
    expected = epochs(loader(augment=augment))
    folder = tmp_path / "cache" if where == "disk" else None
    for _ in range(2):
        decoded = DecodedCache(folder, MUCH)
        assert same(epochs(loader(decoded, augment, workers=workers)), expected)
        assert len(decoded) == 8
        decoded.close()


def test_an_image_is_decoded_once(
    loader: Callable[..., TrainLoader], opened: list[int], tmp_path: Path
) -> None:
    decoded = DecodedCache(tmp_path / "cache", MUCH)
    first = loader(decoded)
    epochs(first, 1)
    assert sorted(opened) == list(range(9))
    epochs(first, 3)
    # The unreadable image is tried again.
    assert sorted(set(opened[9:])) == [4]
    decoded.close()
    opened.clear()
    again = DecodedCache(tmp_path / "cache", MUCH)
    epochs(loader(again), 1)
    assert opened == [4]
    again.close()


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_a_limit_below_the_size_of_all_images(
    sampler: str, loader: Callable[..., TrainLoader], opened: list[int], tmp_path: Path
) -> None:
    expected = epochs(loader(sampler=sampler))
    decoded = DecodedCache(tmp_path / "cache", 20_000)
    cached = loader(decoded, sampler=sampler)
    assert same(epochs(cached), expected)
    assert 0 < len(decoded) < 8
    assert not decoded.takes_more
    (path,) = (tmp_path / "cache").glob("*.pixels")
    assert path.stat().st_size <= 20_000
    decoded.close()


def rewrite_in_place(path: Path) -> None:
    before = path.stat()
    content = bytearray(path.read_bytes())
    other = path.parent / "other.jpg"
    Image.new("RGB", (200, 150), (1, 200, 3)).save(other)
    content[:] = other.read_bytes().ljust(len(content), b"\0")[: len(content)]
    path.write_bytes(content)
    other.unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.parent / "other.jpg"
    Image.new("RGB", (200, 150), (1, 200, 3)).save(other)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [rewrite_in_place, replace])
@pytest.mark.parametrize("between", ["epochs", "runs"])
def test_changed_files_are_decoded_again(
    between: str, change: Any, loader: Callable[..., TrainLoader], split: Split, tmp_path: Path
) -> None:
    """The new file has the same name and time of change, and in one case the same size."""
    decoded = DecodedCache(tmp_path / "cache", MUCH)
    cached = loader(decoded)
    epochs(cached, 1)
    time.sleep(0.02)  # a tick of the file system's clock
    change(Path(split.name(2)))
    if between == "runs":
        decoded.close()
        decoded = DecodedCache(tmp_path / "cache", MUCH)
        cached = loader(decoded)
    assert same(epochs(cached), epochs(loader()))
    assert len(decoded) == 9
    decoded.close()


def test_a_file_that_changed_just_now_is_not_cached(
    loader: Callable[..., TrainLoader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change again within a tick of the clock, unnoticed."""
    monkeypatch.setattr(images_module, "JUST_NOW_NS", 3600 * 10**9)
    decoded = DecodedCache(None, MUCH)
    epochs(loader(decoded))
    assert len(decoded) == 0
    decoded.close()


def test_images_without_files_are_not_cached(loader: Callable[..., TrainLoader]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 30, 30, 3), dtype=np.uint8)
    arrays = Split(ArrayImages(pixels, "a"), np.zeros(6, np.int64))
    decoded = DecodedCache(None, MUCH)
    assert same(epochs(loader(decoded, of=arrays)), epochs(loader(of=arrays)))
    assert len(decoded) == 0
    decoded.close()


# Logs.


def stamp(number: int) -> bytes:
    return number.to_bytes(32, "big")


def image(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (3 + number, 5, 3), dtype=np.uint8)


def written(folder: Path, *numbers: int) -> Path:
    """A log of these images."""
    before = set(folder.glob("*.pixels"))
    decoded = DecodedCache(folder, MUCH)
    for number in numbers:
        decoded.add(stamp(number), image(number))
    decoded.close()
    (path,) = set(folder.glob("*.pixels")) - before
    return path


def readable(decoded: DecodedCache, *numbers: int) -> list[int]:
    """The images that can be read. Their pixels must be right."""
    found = []
    for number in numbers:
        place = decoded.find(stamp(number))
        pixels = None if place is None else decoded.read(place)
        if pixels is not None:
            np.testing.assert_array_equal(pixels, image(number))
            found.append(number)
    return found


def test_incomplete_records_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2, 3)
    whole = path.read_bytes()
    ends = [0]
    for number in (1, 2, 3):
        ends.append(ends[-1] + HEADER_BYTES + image(number).nbytes)
    assert ends[-1] == len(whole)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        decoded = DecodedCache(tmp_path, MUCH)
        assert readable(decoded, 1, 2, 3) == [n for n in (1, 2, 3) if ends[n] <= cut]
        decoded.close()


def test_damaged_records_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2)
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        decoded = DecodedCache(tmp_path, MUCH)
        assert len(readable(decoded, 1, 2)) <= 1
        decoded.close()


def test_a_damaged_record_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    decoded = DecodedCache(tmp_path, MUCH)
    lost = decoded.find(stamp(1))
    assert lost is not None
    assert decoded.read(lost) is None
    decoded.add(stamp(1), image(1), lost)
    assert readable(decoded, 1) == [1]
    decoded.close()


def test_a_log_that_another_process_extends(tmp_path: Path) -> None:
    """Of two processes, each reads the records that the other had at the start, and writes its own log."""
    one = DecodedCache(tmp_path, MUCH)
    one.add(stamp(1), image(1))
    two = DecodedCache(tmp_path, MUCH)
    one.add(stamp(2), image(2))
    two.add(stamp(3), image(3))
    assert readable(two, 1, 2, 3) == [1, 3]
    assert readable(one, 1, 2, 3) == [1, 2]
    for each in (one, two):
        each.close()
    third = DecodedCache(tmp_path, MUCH)
    assert readable(third, 1, 2, 3) == [1, 2, 3]
    third.close()


def test_logs_that_disappear(tmp_path: Path) -> None:
    written(tmp_path, 1)
    decoded = DecodedCache(tmp_path, MUCH)
    again = pickle.loads(pickle.dumps(decoded))
    place = decoded.find(stamp(1))
    assert place is not None
    np.testing.assert_array_equal(again.read(place), image(1))
    again.close()
    for path in tmp_path.iterdir():
        path.unlink()
    assert readable(decoded, 1) == [1]
    assert pickle.loads(pickle.dumps(decoded)).read(place) is None
    decoded.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="by way of /proc")
def test_a_spawned_process_reads_the_cache_in_memory() -> None:
    decoded = DecodedCache(None, MUCH)
    decoded.add(stamp(1), image(1))
    again = pickle.loads(pickle.dumps(decoded))
    place = decoded.find(stamp(1))
    assert place is not None
    np.testing.assert_array_equal(again.read(place), image(1))
    again.close()
    decoded.close()


@pytest.mark.parametrize("half", [0, 30])
def test_a_full_disk_is_reported_once(
    half: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decoded = DecodedCache(tmp_path, MUCH)
    decoded.add(stamp(1), image(1))
    true, calls = os.pwrite, []

    def full(file: int, content: Any, at: int) -> int:
        calls.append(at)
        if len(calls) > (half > 0):
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(file, content[:half], at)

    monkeypatch.setattr(os, "pwrite", full)
    for number in (2, 3, 4):
        decoded.add(stamp(number), image(number))
    monkeypatch.undo()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text
    assert readable(decoded, 1, 2, 3, 4) == [1]
    decoded.close()
    (path,) = tmp_path.glob("*.pixels")
    assert path.stat().st_size == HEADER_BYTES + image(1).nbytes


def test_a_folder_that_cannot_be_created(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    decoded = DecodedCache(tmp_path / "file" / "cache", MUCH)
    decoded.add(stamp(1), image(1))
    assert len(decoded) == 0
    assert len(caplog.records) == 1
    decoded.close()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from finetune.data.cache.decoded import DecodedCache
decoded = DecodedCache(Path(sys.argv[1]), 1 << 40)
number = 0
while True:
    number += 1
    pixels = np.random.default_rng(number).integers(0, 256, (3 + number, 5, 3), dtype=np.uint8)
    decoded.add(number.to_bytes(32, "big"), pixels)
    if number == 50:
        print("fifty", flush=True)
"""


def test_a_killed_writer_leaves_complete_records(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"fifty\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    decoded = DecodedCache(tmp_path, MUCH)
    assert len(decoded) >= 50
    every = range(1, len(decoded) + 1)
    assert readable(decoded, *every) == list(every)
    decoded.close()
