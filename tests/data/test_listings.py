"""Large folders: looked through once, remembered, never stale; and nothing quadratic in what they hold."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.batches.loaders import TrainLoader
from finetune.data.cache import kept
from finetune.data.holdout.recorded import Record
from finetune.data.holdout.splits import carve
from finetune.data.sources import listings, tree
from finetune.data.sources.dataset import Source
from finetune.data.sources.folders import read_folder
from finetune.data.sources.read import read_source
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.schema import AugmentSection


def told(source: Source) -> dict[str, Any]:
    return {
        "classes": source.classes,
        "notes": source.notes,
        **{
            name: ([split.name(i) for i in range(len(split))], split.targets.tolist())
            for name, split in source.splits.items()
        },
    }


def large(root: Path, classes: int, images: int) -> Path:
    """Empty files that are called images, evenly in classes."""
    for number in range(classes):
        folder = root / f"class {number:05}"
        folder.mkdir(parents=True)
        for image in range(images // classes):
            os.close(os.open(folder / f"{image:04}.jpg", os.O_CREAT | os.O_WRONLY))
    return root


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is remembered although it is small and new, with something of everything in it."""
    monkeypatch.setattr(listings, "FROM_FILES", 1)
    monkeypatch.setattr(listings, "JUST_NOW_NS", -1)
    root = tmp_path / "photos"
    for name in (
        "train/cat/1.jpg", "train/cat/deep/er/2.jpg", "train/dög/3.jpg", "train/dög/notes.txt",
        "val/cat/4.jpg", "val/dög/5.png", "train/loose.jpg", "top.jpg", "README", ".hidden/6.jpg",
        os.fsdecode(b"train/cat/\xff.jpg"),
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed."""
    found: list[str] = []
    true = tree.scan

    def counted(folder: Any, watch: Any = None) -> Any:
        found.append(os.fspath(folder))
        return true(folder, watch)

    monkeypatch.setattr(tree, "scan", counted)
    return found


def test_the_same_source_without_looking(photos: Path, looks: list[str]) -> None:
    first = told(read_folder(photos))
    assert len(looks) == 9
    looks.clear()
    assert told(read_folder(photos)) == first
    assert looks == []


def test_by_another_way_to_it(photos: Path, looks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read_folder(photos)
    looks.clear()
    monkeypatch.chdir(photos.parent)
    assert "photos/train/cat/1.jpg" in told(read_folder(Path("photos")))["train"][0]
    monkeypatch.chdir(photos)
    remembered = told(read_folder(Path()))
    assert looks == []
    shutil.rmtree(kept.listings_folder())
    assert told(read_folder(Path())) == remembered


def rename(root: Path) -> None:
    (root / "train/cat/1.jpg").rename(root / "train/cat/10.jpg")


def into_a_folder(root: Path) -> None:
    (root / "train/cat/1.jpg").unlink()
    (root / "train/cat/1.jpg").mkdir()
    (root / "train/cat/1.jpg/9.jpg").touch()


def swap_folders(root: Path) -> None:
    shutil.copytree(root / "train/cat", root / "train/other")
    (root / "train/other/2.jpg").touch()
    shutil.rmtree(root / "train/cat")
    (root / "train/other").rename(root / "train/cat")


def with_the_same_times(root: Path) -> None:
    """As tar and rsync do."""
    before = (root / "train/cat").stat()
    (root / "train/cat/new.jpg").touch()
    os.utime(root / "train/cat", ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "added": lambda root: (root / "train/cat/new.jpg").touch(),
    "added, deep": lambda root: (root / "train/cat/deep/er/new.jpg").touch(),
    "removed": lambda root: (root / "val/dög/5.png").unlink() or (root / "val/dög/6.png").touch(),
    "renamed": rename,
    "a class": lambda root: shutil.copytree(root / "train/cat", root / "train/cow"),
    "a file becomes a folder": into_a_folder,
    "another folder of the name": swap_folders,
    "its time set back": with_the_same_times,
}


@pytest.mark.parametrize("change", CHANGES)
def test_never_stale(change: str, photos: Path, tmp_path: Path) -> None:
    before = told(read_folder(photos))
    time.sleep(0.02)  # a tick of the file system's clock
    CHANGES[change](photos)
    now = told(read_folder(photos))
    assert now != before
    shutil.rmtree(kept.listings_folder())
    assert told(read_folder(photos)) == now


def test_links_are_not_relied_on(photos: Path, looks: list[str]) -> None:
    """What a link leads to changes unseen."""
    (photos / "train/cat/link").symlink_to(photos / "val/cat")
    read_folder(photos)
    assert kept.list_kept() == []


def test_what_was_changed_just_now_is_not_relied_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "JUST_NOW_NS", 3600 * 10**9)
    read_folder(photos)
    assert kept.list_kept() == []


def test_a_clock_of_whole_seconds_is_not_relied_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "_times", lambda folder: (1, 10**9, 3 * 10**9))
    read_folder(photos)
    assert kept.list_kept() == []


def test_small_folders_are_not_remembered(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "FROM_FILES", 1000)
    read_folder(photos)
    assert kept.list_kept() == []


def test_no_torn_or_damaged_listing_counts(photos: Path) -> None:
    first = told(read_folder(photos))
    (folder,) = kept.list_kept()
    path = folder.folder / listings.LISTING
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert listings.recall(photos) is None
    for at in range(0, len(whole), 7):
        harmed = bytearray(whole)
        harmed[at] ^= 0x01
        path.write_bytes(harmed)
        found = listings.recall(photos)
        assert found is None
    assert told(read_folder(photos)) == first
    assert listings.recall(photos) is not None


def test_a_disk_that_cannot_be_written(photos: Path) -> None:
    kept.listings_folder().parent.mkdir(parents=True)
    kept.listings_folder().write_text("in the way")
    assert told(read_folder(photos))["classes"] == ("cat", "dög")


def test_the_cache_command_knows_it(photos: Path, cli: Any) -> None:
    read_folder(photos)
    (entry,) = json.loads(cli("cache", "info", "--json").out)["kept"]
    assert (entry["kind"], entry["source"], entry["files"]) == ("listing", str(photos), 8)
    assert "8 files of" in cli("cache", "info").out
    assert cli("cache", "clear").code == 0
    assert kept.list_kept() == []


# Growth.


def calls(work: Callable[[], Any]) -> int:
    """How many functions of Python and C ``work`` calls."""
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
    """What a training does with its data before the first step, and the first batch that it asks for."""
    source = carve(read_source(str(root)), val_fraction=0.1, test_fraction=0.2, seed=0)
    Record.of(source).to_csv()
    preprocessing = Preprocessing(16, 16, "shorter", "bilinear", (0.5,), (0.5,))
    transform = TrainTransform(AugmentSection(), preprocessing)
    for sampler in ("shuffle", "balanced"):
        loader = TrainLoader(source.splits["train"], transform, batch_size=8, seed=0, sampler=sampler)
        assert loader.batches_per_epoch > 1
        next(loader.draws(0))
    return source


@pytest.mark.parametrize(("classes", "images"), [((50, 50), (500, 2000)), ((50, 200), (2000, 2000))])
def test_work_grows_with_images_and_classes_no_faster_than_they_do(
    classes: tuple[int, int], images: tuple[int, int], tmp_path: Path
) -> None:
    start_up(large(tmp_path / "warm", 5, 50))
    roots = [large(tmp_path / str(n), classes[n], images[n]) for n in (0, 1)]
    few, many = (calls(partial(start_up, root)) for root in roots)
    factor = max(classes[1] / classes[0], images[1] / images[0])
    assert few < many < factor * 1.1 * few


def test_twenty_thousand_images_in_two_thousand_classes(tmp_path: Path, looks: list[str]) -> None:
    root = large(tmp_path / "large", 2000, 20_000)
    source = start_up(root)
    assert len(looks) == 2001
    assert sum(len(split) for split in source.splits.values()) == 20_000
    assert len(source.classes) == 2000
    counts = np.bincount(source.splits["train"].targets)
    assert counts.min() >= 1
