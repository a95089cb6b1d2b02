"""Names with terminal control characters or invalid Unicode: every command shows escapes."""

import csv
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names that other file systems refuse")

# Escape, bell, a new line, a change of direction, and the C1 escape.
ODD = "a\x1b[31m\x07\n\u202e\x9b1m"
RECIPE = """\
data: {source: SOURCE, image_size: 32, resize: 32, workers: 0}
model: {backbone: resnet18, weights: none}
train: {batch_size: 8, phases: [{freeze: backbone, epochs: 1, lr: 1e-2}]}
cache: {where: off}
"""


def images(root: Path, odd: str, class_name: str = "odd") -> Path:
    for split, count in {"train": 6, "val": 3, "test": 3}.items():
        for label, name in enumerate(("even", class_name)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                color = (index * 20, 200 * label, (sum(map(ord, split)) + 31 * index) % 256)
                Image.new("RGB", (36, 36), color).save(folder / f"{odd}{index}.png")
    return root


def steers(text: str) -> list[str]:
    """The control characters in a text."""
    return [each for each in text if each not in "\n\t" and unicodedata.category(each) in ("Cc", "Cf", "Cs")]


@pytest.fixture
def heard(cli: Callable[..., Any]) -> Callable[..., Any]:
    """``cli`` with checks: no control characters in the output, and the exit code is ``code``."""

    def run(*words: str | Path, code: int | None = 0) -> Any:
        ended = cli(*words)
        assert steers(ended.out + ended.err) == []
        if code is not None:
            assert ended.code == code, ended.err
        return ended

    return run


def test_every_command_escapes_control_characters_in_names(
    chdir_tmp: Path, heard: Callable[..., Any]
) -> None:
    place = chdir_tmp / ODD
    place.mkdir()
    source = images(place / f"images{ODD}", ODD)
    recipe, run = place / f"recipe{ODD}.yaml", place / f"run{ODD}"
    recipe.write_text(RECIPE.replace("SOURCE", json.dumps(str(source))))
    heard("recipe", "validate", recipe)
    heard("recipe", "show", recipe, "--resolved")
    heard("doctor", source)
    ended = heard("train", recipe, "--run-dir", run)
    # A new line in the name does not start a line of the message.
    assert not [line for line in ended.err.splitlines() if line.startswith("\\u202e")]
    heard("train", recipe, "--run-dir", run, code=2)
    heard("train", recipe, "--run-dir", run, "--resume")
    heard("eval", run, "--predictions", place / f"eval{ODD}.csv")
    heard("eval", run, "--json")
    heard("predict", run, source / "test", "--csv", place / f"predict{ODD}.csv")
    heard("predict", run, source / "test", "--jsonl")
    heard("predict", run, source / "test")
    heard("predict", run, source / "test", "--move-into", place / f"sorted{ODD}")
    heard("export", run, "--format", "safetensors")
    heard("export", run, "--out", place / f"nothing{ODD}.xyz", code=2)
    heard("layers", run, "--plot", place / f"moved{ODD}.png")
    heard("compare", run, place / f"no{ODD}", code=2)
    for words in (
        ("eval",),
        ("predict", "x"),
        ("export",),
        ("layers",),
        ("doctor",),
        ("advise",),
        ("train",),
    ):
        command, *rest = words
        heard(command, place / f"no{ODD}", *rest, code=2)
    for table in (f"eval{ODD}.csv", f"predict{ODD}.csv", f"sorted{ODD}/sorted.csv"):
        text = (place / table).read_text(encoding="utf-8")
        assert "\\x1b[31m" in text
        assert steers(text.replace("\r\n", "\n")) == []


def test_folds_and_comparisons(chdir_tmp: Path, heard: Callable[..., Any]) -> None:
    source = images(chdir_tmp / "images", ODD)
    recipe = chdir_tmp / f"r{ODD}.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", json.dumps(str(source))))
    heard("cv", recipe, "--folds", "2")
    runs = [Path("runs") / f"r{ODD}-cv" / f"fold-{number}" for number in (0, 1)]
    heard("compare", *runs, code=None)
    heard("lr", recipe, "--steps", "10", code=None)


def test_a_class_name_with_control_characters_is_refused(chdir_tmp: Path, heard: Callable[..., Any]) -> None:
    source = images(chdir_tmp / "images", "p", class_name=ODD)
    recipe = chdir_tmp / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(source)))
    assert "\\x1b" in heard("train", recipe, code=2).err
    heard("doctor", source, code=None)
    heard("advise", source, code=2)


def test_names_that_are_not_unicode_are_escaped(chdir_tmp: Path, heard: Callable[..., Any]) -> None:
    raw = os.fsdecode(b"p-\xff")
    source = images(chdir_tmp / "images", raw)
    recipe = chdir_tmp / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(source)))
    odd_run = os.fsdecode(b"run-\xff")
    for command in (["train"], ["cv", "--folds", "2"], ["train", "--seeds", "2"]):
        ended = heard(*command, recipe, "--run-dir", odd_run, code=2)
        assert "is not UTF-8. Choose another with --run-dir." in ended.err
    assert not Path(odd_run).exists()
    heard("train", recipe, "--run-dir", "run")
    heard("eval", "run", "--predictions", os.fsdecode(b"e-\xff.csv"))
    heard("predict", "run", source / "test", "--csv", os.fsdecode(b"p-\xff.csv"))
    with Path(os.fsdecode(b"p-\xff.csv")).open(encoding="utf-8", newline="") as file:
        assert all("p-\\udcff" in row["path"] for row in csv.DictReader(file))
    lines = heard("predict", "run", source / "test", "--jsonl").out.splitlines()
    assert all("\udcff" in json.loads(line)["path"] for line in lines)
    for name in (b"m-\xff.pt2", b"m-\xff/m.onnx"):
        assert "is not UTF-8" in heard("export", "run", "--out", os.fsdecode(name), code=2).err
    Path("run").rename(odd_run)
    for word in ("eval", "export", "layers"):
        assert "is not UTF-8. Rename it." in heard(word, odd_run, code=2).err


def test_a_class_folder_whose_name_is_not_unicode_is_refused(
    chdir_tmp: Path, heard: Callable[..., Any]
) -> None:
    source = images(chdir_tmp / "images", "p", class_name=os.fsdecode(b"c-\xff"))
    recipe = chdir_tmp / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(source)))
    assert "c-\\udcff" in heard("train", recipe, code=2).err
    assert not Path("runs").exists()
