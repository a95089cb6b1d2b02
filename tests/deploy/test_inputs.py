"""Files, folders and patterns become paths, and what leads nowhere is said before any work."""

import os
from pathlib import Path

import pytest

from finetune.deploy.inputs import check_inputs, expand
from finetune.errors import UserError


@pytest.fixture
def album(chdir_tmp: Path) -> Path:
    """Names only: nothing is opened here."""
    for name in (
        "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "raw.dat", "odd[1].jpg",
        "trip/2.jpeg", "trip/1.jpeg", "trip/.cache/x.jpg", "trip/day/3.webp", "empty/readme.txt",
    ):  # fmt: skip
        path = chdir_tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return chdir_tmp


def test_a_folder_gives_its_pictures_sorted_without_hidden_ones(album: Path) -> None:
    assert list(expand(["trip"])) == ["trip/1.jpeg", "trip/2.jpeg", "trip/day/3.webp"]
    assert ".hidden.jpg" not in "".join(expand(["."]))


def test_a_named_file_is_taken_whatever_it_is_called(album: Path) -> None:
    assert list(expand(["raw.dat", "odd[1].jpg", "raw.dat"])) == ["raw.dat", "odd[1].jpg", "raw.dat"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg", "odd[1].jpg"]),
        ("*", ["a.PNG", "b.jpg", "odd[1].jpg"]),
        ("*.dat", ["raw.dat"]),
        ("trip/**", ["trip/1.jpeg", "trip/2.jpeg", "trip/day/3.webp"]),
        ("**/*.webp", ["trip/day/3.webp"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
    ],
)
def test_patterns(album: Path, pattern: str, expected: list[str]) -> None:
    assert list(expand([pattern])) == expected
    assert list(expand([str(album / pattern)])) == [str(album / name) for name in expected]


def test_the_order_given_is_kept(album: Path) -> None:
    assert list(expand(["trip/day", "b.jpg", "*.PNG"])) == ["trip/day/3.webp", "b.jpg", "a.PNG"]


def test_all_faults_at_once(album: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_inputs(["b.jpg", "gone.jpg", "*.gif", "empty", "new\nline"])
    assert str(caught.value).splitlines() == [
        "gone.jpg: no such file or folder.",
        "*.gif: no picture matches this pattern.",
        "empty: a folder without pictures.",
        "new\\nline: no such file or folder.",
    ]
    check_inputs(["b.jpg", "trip", "*.jpg"])


def test_a_broken_link_is_a_bad_picture_not_a_wrong_argument(album: Path) -> None:
    (album / "link.jpg").symlink_to("nowhere")
    check_inputs(["link.jpg"])
    assert list(expand(["link.jpg"])) == ["link.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX file names")
def test_names_that_are_not_unicode(album: Path) -> None:
    name = os.fsdecode(b"trip/day/\xff.jpg")
    Path(name).write_bytes(b"")
    check_inputs([name])
    assert name in list(expand(["trip"]))
