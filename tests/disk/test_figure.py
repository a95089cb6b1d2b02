"""Figures are written whole or not at all, and their titles are plain text to matplotlib."""

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from finetune.disk.figure import check_figure, write_figure
from finetune.errors import SaveError, UserError


def example_figure() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().set_title("a$b$_{", parse_math=False)
    return figure


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("bare", b"\x89PNG")],
)
def test_the_extension_gives_the_format(tmp_path: Path, name: str, begins: bytes) -> None:
    write_figure(example_figure(), tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_an_unknown_extension_is_refused_early(tmp_path: Path) -> None:
    for act in (check_figure, lambda path: write_figure(example_figure(), path)):
        with pytest.raises(UserError, match=r"a\.xyz: unknown figure format. Use one of .*\.png"):
            act(tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(SaveError, match="No space left"):
        write_figure(example_figure(), tmp_path / "a.png")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file names")
def test_a_name_that_is_not_valid_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a-\xff.png")
    write_figure(example_figure(), path)
    assert path.stat().st_size > 0
