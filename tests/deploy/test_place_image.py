"""An image is copied, linked or moved to a free name, and an existing file is never replaced."""

from pathlib import Path

import pytest

from finetune.deploy.place_image import PLACED, By, is_placed, place_image

every_way = pytest.mark.parametrize("by", PLACED)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    path = tmp_path / "a.jpg"
    path.write_text("a")
    return path


@every_way
def test_a_free_name_gets_the_image(by: By, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.jpg"
    assert not is_placed(source, target, by)
    assert place_image(source, target, by, tmp_path / "stage")
    assert target.read_text() == "a"
    assert target.is_symlink() is (by == "link")
    assert source.exists() is (by != "move")
    if by != "move":
        assert is_placed(source, target, by)
    assert list((tmp_path / "stage").iterdir()) == []


@every_way
def test_an_existing_name_is_refused(by: By, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.jpg"
    target.write_text("b")
    assert not place_image(source, target, by, tmp_path / "stage")
    assert (source.read_text(), target.read_text()) == ("a", "b")


def test_a_link_to_the_image_is_not_its_move(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.jpg"
    target.symlink_to(source)
    assert is_placed(source, target, "link")
    assert not is_placed(source, target, "move")
