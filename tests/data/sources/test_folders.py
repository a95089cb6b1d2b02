"""Folders of classes, with and without split folders around them."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.data.dataset import Source
from finetune.data.sources.read import read_source
from finetune.errors import DataError

Put = Callable[..., Path]


def layout(source: Source) -> dict[str, dict[str, list[str]]]:
    """Split -> class -> file names."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, split in source.splits.items():
        for index, target in enumerate(split.targets.tolist()):
            of_class = found.setdefault(name, {}).setdefault(source.classes[target], [])
            of_class.append(Path(split.name(index)).name)
    return found


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_source(str(root))
    return str(caught.value)


def test_split_folders_are_read(put: Put) -> None:
    root = put("train/cat/1.png", "train/dog/2.jpg", "val/cat/3.png", "val/dog/4.png", "test/dog/5.png")
    put("test/cat/6.png")
    source = read_source(str(root))
    assert source.classes == ("cat", "dog")
    assert layout(source) == {
        "train": {"cat": ["1.png"], "dog": ["2.jpg"]},
        "val": {"cat": ["3.png"], "dog": ["4.png"]},
        "test": {"cat": ["6.png"], "dog": ["5.png"]},
    }
    assert source.notes == ()
    assert source.splits["train"].open(1).mode == "RGB"


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_every_name_of_val_is_read(name: str, put: Put) -> None:
    assert list(read_source(str(put("train/a/1.png", "train/b/2.png", f"{name}/a/3.png"))).splits) == [
        "train",
        "val",
    ]


@pytest.mark.parametrize("held", ["val", "test"])
def test_a_missing_split_stays_missing(held: str, put: Put) -> None:
    root = put("train/a/1.png", "train/b/2.png", f"{held}/a/3.png", f"{held}/b/3.png")
    assert list(read_source(str(root)).splits) == ["train", held]


def test_a_folder_of_classes_is_sorted_by_name(put: Put) -> None:
    root = put("b/z.png", "b/deep/er/y.png", "C/1.png", "a/10.png", "a/9.png")
    assert layout(read_source(str(root))) == {
        "all": {"C": ["1.png"], "a": ["10.png", "9.png"], "b": ["y.png", "z.png"]}
    }


def test_a_train_folder_alone_is_divided_later(put: Put) -> None:
    source = read_source(str(put("train/a/1.png", "train/b/2.png")))
    assert layout(source) == {"all": {"a": ["1.png"], "b": ["2.png"]}}
    assert "split off" in source.notes[0]


def test_two_val_folders_are_refused(put: Put) -> None:
    message = refused(put("train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"))
    assert "'val', 'valid'" in message
    assert "Keep one" in message


def test_a_class_may_be_named_train(put: Put) -> None:
    source = read_source(str(put("train/1.png", "car/2.png", "bus/3.png")))
    assert source.classes == ("bus", "car", "train")
    assert "'train'" in source.notes[0]
    assert "read as classes" in source.notes[0]


def test_splits_beside_classes_are_ambiguous(put: Put) -> None:
    message = refused(put("train/a/1.png", "train/b/2.png", "car/3.png"))
    assert "ambiguous" in message
    assert "'train'" in message
    assert "'car'" in message


def test_split_folders_without_classes_are_refused(put: Put) -> None:
    message = refused(put("train/1.png", "test/2.png"))
    assert "no class folders" in message
    assert "path and label" in message


def test_an_unlabelled_test_folder_is_skipped(put: Put) -> None:
    source = read_source(str(put("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/4.png")))
    assert list(source.splits) == ["train", "val"]
    assert any("test/" in note and "no labels" in note for note in source.notes)


def test_folders_without_images_beside_splits_are_ignored(put: Put) -> None:
    root = put("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/3.png")
    (root / "annotations").mkdir()
    (root / "annotations" / "boxes.json").write_text("{}")
    assert list(read_source(str(root)).splits) == ["train", "test"]


def test_splits_without_train_are_refused(put: Put) -> None:
    root = put("val/a/1.png", "test/b/1.png")
    message = refused(root)
    assert "no train/" in message
    assert f"{root}/" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_an_error(split: str, put: Put) -> None:
    message = refused(put("train/cat/1.png", "train/dog/2.png", f"{split}/cut/3.png", f"{split}/dog/3.png"))
    assert f"only in {split}: 'cut'" in message
    assert "in train: 'cat', 'dog'" in message
    assert "Did you mean 'cat'?" in message


def test_a_class_that_val_lacks_gives_a_note(put: Put) -> None:
    source = read_source(str(put("train/cat/1.png", "train/dog/2.png", "val/dog/3.png")))
    assert source.notes == ("val has no images of 'cat', so it does not measure those classes",)


@pytest.mark.parametrize("where", ["", "train/", "val/"])
def test_an_empty_class_is_an_error(where: str, put: Put) -> None:
    root = put("train/a/1.png", "train/b/2.png", "val/a/3.png") if where else put("a/1.png", "b/2.png")
    (root / f"{where}owl").mkdir()
    (root / f"{where}owl" / "readme.txt").write_text("soon")
    message = refused(root)
    assert "no images in 'owl'" in message
    assert message.startswith(f"{root}/{where}".rstrip("/"))


def test_images_without_class_folders_are_an_error(put: Put) -> None:
    message = refused(put("1.png", "2.png"))
    assert "2 images, but no class folders" in message


def test_images_beside_class_folders_give_a_note(put: Put) -> None:
    source = read_source(str(put("a/1.png", "b/1.png", "loose.png")))
    assert any("skipped images outside the class folders (1)" in note for note in source.notes)


def test_images_directly_in_a_split_give_a_note(put: Put) -> None:
    source = read_source(str(put("train/a/1.png", "train/b/1.png", "train/2.png")))
    assert len(source.splits["all"]) == 2
    assert any(note.startswith(f"{source.name}/train: skipped images outside") for note in source.notes)


def test_other_files_give_a_note(put: Put) -> None:
    root = put("a/1.png", "b/1.png")
    (root / "a" / "notes.txt").write_text("x")
    (root / "README.md").write_text("beside the folders")
    (root / "LICENSE").write_text("x")
    (root / "b" / ".hidden.txt").write_text("x")
    expected = f"{root}: skipped files that are not images (.md 1, .txt 1, no extension 1)"
    assert [note for note in read_source(str(root)).notes if "skipped files" in note] == [expected]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert "no images" in refused(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tfrecord").write_bytes(b"x")
    message = refused(tmp_path)
    assert "'a'" in message
    assert ".tfrecord" in message


def test_hidden_and_stray_folders_are_no_classes(put: Put) -> None:
    root = put(
        "a/1.png", "b/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "a/.thumbs/2.png", "a/._1.png"
    )
    assert layout(read_source(str(root))) == {"all": {"a": ["1.png"], "b": ["1.png"]}}


def test_a_folder_around_the_data_set(put: Put) -> None:
    root = put("set/a/1.png", "set/b/1.png")
    assert f"Give {root}/set" in refused(root)


def test_a_folder_of_data_sets_is_refused(put: Put) -> None:
    message = refused(put("one/train/a/1.png", "one/train/b/1.png", "two/test/a/1.png"))
    assert "'one', 'two'" in message
    assert "put the split first" in message


def test_circular_links_are_followed_once(put: Put) -> None:
    root = put("a/1.png", "b/1.png")
    (root / "a" / "up").symlink_to(root)
    (root / "again").symlink_to(root)
    (root / "b" / "self").symlink_to("self")
    assert layout(read_source(str(root))) == {"all": {"a": ["1.png"], "b": ["1.png"]}}


def test_a_linked_class_is_a_class(put: Put, tmp_path: Path) -> None:
    root = put("a/1.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "a" / "1.png").rename(elsewhere / "2.png")
    put("a/1.png")
    (root / "b").symlink_to(elsewhere)
    assert layout(read_source(str(root))) == {"all": {"a": ["1.png"], "b": ["2.png"]}}


def test_unreadable_files_are_not_dropped(put: Put) -> None:
    root = put("a/1.png", "b/1.png")
    (root / "a" / "lost.jpg").symlink_to("nowhere.jpg")
    assert layout(read_source(str(root)))["all"]["a"] == ["1.png", "lost.jpg"]


def test_names_are_compared_in_composed_form(put: Put) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    source = read_source(str(put(f"train/{composed}/1.png", "train/tea/1.png", f"test/{decomposed}/2.png")))
    assert source.classes == (composed, "tea")
    assert len(source.splits["test"]) == 1


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_class_names_with_control_characters_are_refused(name: bytes, put: Put) -> None:
    root = put("a/1.png", "b/1.png")
    try:
        (root / "a").rename(os.fsdecode(os.fsencode(root) + b"/" + name))
    except OSError:
        pytest.skip("this file system wants UTF-8")
    assert "Rename the folder" in refused(root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_an_error(put: Put) -> None:
    root = put("a/1.png", "b/1.png")
    (root / "a").chmod(0)
    try:
        assert "cannot list" in refused(root)
    finally:
        (root / "a").chmod(0o755)


def test_a_source_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(Path("hotdgo"))
    assert str(tmp_path / "hotdgo") in message
    assert "Did you mean 'hotdog'?" in message
    (tmp_path / "photos").mkdir()
    assert "Did you mean 'photos'?" in refused(Path("photoz"))
    assert f"Did you mean '{tmp_path / 'photos'}'?" in refused(tmp_path / "photoz")
    assert "no such file" in refused(Path("a\0b")) or "null" in refused(Path("a\0b"))


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
def test_an_archive_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert "Unpack it" in refused(tmp_path / name)


def test_a_known_name_wins_over_a_folder_of_that_name(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put("digits/a/1.png", "digits/b/1.png"))
    source = read_source("digits")
    assert len(source.splits["all"]) == 1797
    assert "./digits" in source.notes[0]
    assert read_source("./digits").classes == ("a", "b")


def test_every_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is listed once, and no file is opened."""
    for number in range(40):
        (tmp_path / f"c{number}").mkdir()
        for image in range(25):
            (tmp_path / f"c{number}" / f"{image}.jpg").touch()
    calls: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        calls.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert len(read_source(str(tmp_path)).splits["all"]) == 1000
    assert len(calls) == len(set(calls)) == 41
