"""The commands of each lesson run as they stand, in a small form: a tiny network, tiny images, two steps."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir

ROOT = Path(__file__).parents[2]
LESSONS = sorted(path for path in (ROOT / "docs" / "lessons").glob("*.md") if path.name != "README.md")
RECIPES = ("docs/lessons/digits.yaml", "docs/lessons/few.yaml")
BLOCK = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(lesson: Path) -> list[list[str]]:
    """The words of each command in the blocks of a page."""
    lines = [
        line for block in BLOCK.findall(lesson.read_text(encoding="utf-8")) for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("finetune ")]


def small(words: list[str], settings: list[str]) -> list[str]:
    """The command with the settings of a tiny training; of values to vary, the first and the last."""
    found: list[str] = []
    for word in words:
        key, equals, values = word.partition("=")
        if found and found[-1] == "--vary":
            word = f"{key}{equals}{values.split(',')[0]},{values.split(',')[-1]}"
        found.append(str(ROOT / word) if word in RECIPES else word)
    if set(RECIPES) & set(words):
        found += [word for each in settings for word in ("--set", each)]
    return found


@pytest.fixture
def settings(chdir_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What makes the recipe of the lessons tiny. It starts from a run, since some lessons need weights."""
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(chdir_tmp, {"images": (60, 60)}) / "images"
    with RunDir.open(chdir_tmp / "source") as run:
        fit(tiny.recipe(source, "{max_steps: 2, threads: 1}"), run, device="cpu")
    return [
        f"data.source={source}", "data.image_size=16", "data.resize=16", "data.workers=0",
        f"model.backbone={tiny.STANDS_FOR}", f"model.weights={chdir_tmp / 'source'}",
        "train.threads=1", "train.max_steps=2", "train.warmup_epochs=0",
    ]  # fmt: skip


@pytest.mark.curves
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_commands_of_a_lesson_run(lesson: Path, settings: list[str], cli: Any) -> None:
    text = lesson.read_text(encoding="utf-8")
    for words in commands(lesson):
        ended = cli(*small(words, settings))
        assert ended.code == 0, f"{shlex.join(words)}\n{ended.err}"
    # And they leave the figures that the page speaks of.
    figures = re.findall(r"`(runs/[^`]*\.(?:png|html))`", text)
    assert [name for name in figures if not Path(name).is_file()] == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_a_command_and_its_figure(lesson: Path) -> None:
    text = lesson.read_text(encoding="utf-8")
    assert commands(lesson)
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert shown
    assert [name for name in shown if not (lesson.parent / name).is_file()] == []


def test_the_index_names_every_lesson() -> None:
    index = (ROOT / "docs" / "lessons" / "README.md").read_text(encoding="utf-8")
    assert 5 <= len(LESSONS) <= 8
    assert [path.name for path in LESSONS if f"({path.name})" not in index] == []
