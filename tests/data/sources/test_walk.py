"""Walking a folder lists its images, leaves out other files, and ends."""

from pathlib import Path

import pytest

from finetune.data.sources.files.image_files import is_image_file, is_image_name
from finetune.data.sources.files.walk import walk_files
from finetune.errors import DataError


def images_in(folder: Path) -> list[Path]:
    return [Path(path) for path in walk_files(folder) if is_image_file(path)]


def test_a_folder_lists_only_its_images(tmp_path: Path) -> None:
    for name in [
        "b.JPG",
        "a.png",
        "c/d.webp",
        "c/notes.txt",
        "labels.csv",
        ".hidden.jpg",
        "._a.png",
        "z.heic",
    ]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for stray in [".git", "__MACOSX", ".ipynb_checkpoints", "@eaDir"]:
        (tmp_path / stray).mkdir()
        (tmp_path / stray / "x.jpg").write_bytes(b"x")
    found = [str(path.relative_to(tmp_path)) for path in images_in(tmp_path)]
    assert found == ["a.png", "b.JPG", "c/d.webp", "z.heic"]
    assert len(list(walk_files(tmp_path))) == 6


def test_links_to_a_parent_end_the_walk(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "twin").symlink_to("a")
    assert [path.relative_to(tmp_path) for path in images_in(tmp_path)] == [Path("a/x.jpg")]


def test_the_walk_is_lazy(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    first = next(walk_files(tmp_path))
    assert first == str(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="cannot be listed"):
        next(walk_files(tmp_path / "nowhere"))


@pytest.mark.parametrize(("name", "is_one"), [("a.JpEg", True), ("a", False), (".jpg", True), ("jpg", False)])
def test_image_names(name: str, is_one: bool) -> None:
    assert is_image_name(name) == is_one
