"""Every command writes its output file in the same way."""

import csv
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune.deploy.export import export
from finetune.deploy.sorted_table import TABLE, read_placed
from finetune.deploy.sorting import sorting
from finetune.errors import SaveError
from finetune.training.trained import Trained

Cli = Callable[..., Any]
posix = pytest.mark.skipif(sys.platform != "linux", reason="no such devices here")
FULL = "full{}: cannot be written (No space left on device). Free some space or choose another path."

# The words of a command, by the ending of what it writes.
COMMANDS = {
    "predict": (["predict", "RUN", "IMAGES", "--csv", "OUT"], ".csv"),
    "eval": (["eval", "RUN", "--predictions", "OUT"], ".csv"),
    "recipe": (["recipe", "new", "-o", "OUT"], ".yaml"),
    "safetensors": (["export", "RUN", "--out", "OUT"], ".safetensors"),
    "pt2": (["export", "RUN", "--out", "OUT"], ".pt2"),
}


@pytest.fixture
def words(run: Path, shapes: Path) -> Callable[[str, Path], list[str]]:
    def of(command: str, out: Path) -> list[str]:
        known = {"RUN": str(run), "IMAGES": str(shapes / "test" / "disc"), "OUT": str(out)}
        return [known.get(word, word) for word in COMMANDS[command][0]]

    return of


@posix
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_one_message(chdir_tmp: Path, cli: Cli, words: Any, command: str) -> None:
    out = Path(f"full{COMMANDS[command][1]}")
    out.symlink_to("/dev/full")
    ended = cli(*words(command, out))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1] == f"error: {FULL.format(COMMANDS[command][1])}"
    assert "Traceback" not in ended.err
    assert list(Path().iterdir()) == [out]
    assert out.is_symlink()


@posix
@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_stays(chdir_tmp: Path, cli: Cli, words: Any, command: str) -> None:
    ending = COMMANDS[command][1]
    Path("inner").mkdir()
    Path(f"link{ending}").symlink_to(f"inner/real{ending}")
    ended = cli(*words(command, Path(f"link{ending}")))
    assert ended.code == 0, ended.err
    assert Path(f"link{ending}").is_symlink()
    assert Path(f"inner/real{ending}").stat().st_size > 0


@posix
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_refused_before_any_work(chdir_tmp: Path, cli: Cli, words: Any, command: str) -> None:
    out = Path(f"folder{COMMANDS[command][1]}")
    out.mkdir()
    ended = cli(*words(command, out))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: {out} is a folder. Give a file name.\n"


@posix
def test_a_limit_on_the_size_of_files_does_not_end_the_process(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SaveError, match="ulimit -f"):
        export(trained, "pt2", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_image_called_like_a_formula(chdir_tmp: Path, cli: Cli, run: Path) -> None:
    names = ["=1+1.png", "-x.png", "@a.png", "a.png"]
    for name in names:
        Image.new("RGB", (40, 40), "red").save(name)
    paths = ["predict", str(run), "--csv", "out.csv", "--top", "1", "--", *names]
    assert cli(*paths).code == 0
    assert [row[0] for row in rows("out.csv")[1:]] == ["'=1+1.png", "'-x.png", "'@a.png", "a.png"]
    # A number stays one.
    assert all(0 < float(row[2]) <= 1 for row in rows("out.csv")[1:])
    assert cli(*paths[:2], "--no-csv-safe", *paths[2:]).code == 0
    assert [row[0] for row in rows("out.csv")[1:]] == names


def rows(name: str) -> list[list[str]]:
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_second_sorting_finds_images_of_a_class_called_like_a_formula(chdir_tmp: Path) -> None:
    from finetune.deploy.predict import Prediction

    classes = ("=sum", "'=sum", "-1")
    for index, _ in enumerate(classes):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(f"{index}.png")
    batch = [Prediction(f"{index}.png", (name,), (0.9,)) for index, name in enumerate(classes)]
    for placed in (3, 0):
        with sorting(Path("out"), classes, "copy") as sorter:
            sorter.write(batch)
        assert (sorter.counts.placed, sorter.counts.already_there) == (placed, 3 - placed)
        table = [row[1] for row in rows(f"out/{TABLE}")[1:]]
        assert table == ["'=sum", "''=sum", "-1"]
    places = read_placed(Path("out") / TABLE)
    assert list(places.values()) == ["=sum/0.png", "'=sum/1.png", "-1/2.png"]
