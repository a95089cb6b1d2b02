"""Files, folders and patterns become paths, and wrong ones are reported before any work."""

import io
import os
from pathlib import Path
from typing import Any

import pytest

from finetune.deploy.inputs import check_inputs, expand, read_list
from finetune.errors import UserError


@pytest.fixture
def album(chdir_tmp: Path) -> Path:
    """Empty files: these tests open none."""
    for name in (
        "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "raw.dat", "odd[1].jpg",
        "trip/2.jpeg", "trip/1.jpeg", "trip/.cache/x.jpg", "trip/day/3.webp", "empty/readme.txt",
    ):  # fmt: skip
        path = chdir_tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return chdir_tmp


def test_a_folder_gives_its_images_sorted_without_hidden_ones(album: Path) -> None:
    assert list(expand(["trip"])) == ["trip/1.jpeg", "trip/2.jpeg", "trip/day/3.webp"]
    assert ".hidden.jpg" not in "".join(expand(["."]))


def test_a_file_is_taken_whatever_its_name(album: Path) -> None:
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


def test_all_errors_are_reported_at_once(album: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_inputs(["b.jpg", "gone.jpg", "*.gif", "empty", "new\nline"])
    assert str(caught.value).splitlines() == [
        "gone.jpg: no such file or folder.",
        "*.gif: no image matches this pattern.",
        "empty: a folder without images.",
        "new\\nline: no such file or folder.",
    ]
    check_inputs(["b.jpg", "trip", "*.jpg"])


def test_a_broken_link_is_an_unreadable_image_and_not_a_wrong_argument(album: Path) -> None:
    (album / "link.jpg").symlink_to("nowhere")
    check_inputs(["link.jpg"])
    assert list(expand(["link.jpg"])) == ["link.jpg"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX file names")
def test_names_that_are_not_unicode(album: Path) -> None:
    name = os.fsdecode(b"trip/day/\xff.jpg")
    Path(name).write_bytes(b"")
    check_inputs([name])
    assert name in list(expand(["trip"]))


class Slow(io.RawIOBase):
    """A pipe that returns a few bytes per read."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content, self._size = content, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self._content = self._content[: self._size], self._content[self._size :]
        buffer[: len(piece)] = piece
        return len(piece)


def listed(content: bytes, null: bool = False) -> list[str]:
    return list(read_list(io.BytesIO(content), null=null))


@pytest.mark.parametrize(
    ("content", "null", "names"),
    [
        (b"a.jpg\nb c.jpg\n", False, ["a.jpg", "b c.jpg"]),
        (b"a.jpg", False, ["a.jpg"]),
        (b"\n\na.jpg\n\n", False, ["a.jpg"]),
        (b"a.jpg\r\nb.jpg\r\n", False, ["a.jpg", "b.jpg"]),
        (b"\xef\xbb\xbfa.jpg\nb.jpg", False, ["a.jpg", "b.jpg"]),
        (b"a.jpg\0b\nc.jpg\0", True, ["a.jpg", "b\nc.jpg"]),
        (b" a.jpg \n-\n", False, [" a.jpg ", "-"]),
        (b"odd\xff.jpg\n", False, ["odd\udcff.jpg"]),
        ("é猫.jpg\n".encode(), False, ["é猫.jpg"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_list_of_paths(chdir_tmp: Path, content: bytes, null: bool, names: list[str], size: int) -> None:
    assert listed(content, null) == names
    assert list(read_list(io.BufferedReader(Slow(content, size)), null=null)) == names


def test_a_file_name_may_end_in_a_carriage_return(chdir_tmp: Path) -> None:
    (chdir_tmp / "a.jpg\r").write_bytes(b"")
    assert listed(b"a.jpg\r\nb.jpg\r\n") == ["a.jpg\r", "b.jpg"]


@pytest.mark.parametrize(("content", "null"), [(b"", False), (b"\n\r\n", False), (b"\0\0", True)])
def test_an_empty_list_is_an_error(content: bytes, null: bool) -> None:
    with pytest.raises(UserError, match="no paths"):
        listed(content, null)
    with pytest.raises(UserError, match="no paths"):
        read_list(None)


def test_names_that_end_in_nul_need_the_option() -> None:
    with pytest.raises(UserError, match="--null"):
        listed(b"a.jpg\0b.jpg\0")


def test_paths_are_yielded_as_they_arrive() -> None:
    """The writing program need not have ended."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", buffering=0) as pipe:
        pipe.write(b"a.jpg\n")
        paths = read_list(stream)
        assert next(paths) == "a.jpg"
        pipe.write(b"b.jpg\n")
        assert next(paths) == "b.jpg"


def test_a_list_among_other_inputs(album: Path) -> None:
    names = ["b.jpg", "trip", "gone.jpg", "empty", "*.jpg"]
    found = list(expand(["a.PNG", "-", "trip/1.jpeg"], names))
    trip = ["trip/1.jpeg", "trip/2.jpeg", "trip/day/3.webp"]
    assert found == ["a.PNG", "b.jpg", *trip, "gone.jpg", "empty", "*.jpg", "trip/1.jpeg"]
    check_inputs(["-", "b.jpg"])
    with pytest.raises(UserError, match="once"):
        check_inputs(["-", "-"])


def test_a_file_called_dash_is_read_by_its_path(album: Path) -> None:
    (album / "-").write_bytes(b"")
    assert list(expand(["./-"])) == ["./-"]
