"""Drawings are written as all outputs are; no name in them is a formula to matplotlib."""

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from finetune.disk.figure import check_figure, write_figure
from finetune.errors import SaveError, UserError


def drawing() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().set_title("a$b$_{", parse_math=False)
    return figure


@pytest.mark.parametrize(
    ("name", "begins"),
    [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("bare", b"\x89PNG")],
)
def test_the_ending_says_the_format(tmp_path: Path, name: str, begins: bytes) -> None:
    write_figure(drawing(), tmp_path / "new" / name)
    assert (tmp_path / "new" / name).read_bytes().startswith(begins)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_another_ending_is_refused_early(tmp_path: Path) -> None:
    for act in (check_figure, lambda path: write_figure(drawing(), path)):
        with pytest.raises(UserError, match=r"a\.xyz: cannot be written .* Take one of .*\.png"):
            act(tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(SaveError, match="No space left"):
        write_figure(drawing(), tmp_path / "a.png")


@pytest.mark.skipif(os.name != "posix", reason="no such names here")
def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a-\xff.png")
    write_figure(drawing(), path)
    assert path.stat().st_size > 0
