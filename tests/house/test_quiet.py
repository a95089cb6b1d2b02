"""``--quiet`` leaves only data and errors, at any position on the command line."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import output

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 16, phases: [{{freeze: none, epochs: 1}}], max_steps: 1}}
"""


@pytest.fixture
def recipe(chdir_tmp: Path, shapes: Path) -> str:
    Path("r.yaml").write_text(RECIPE.format(source=shapes))
    return "r.yaml"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quiet_train_prints_the_same_data_and_no_notes(recipe: str, cli: Any) -> None:
    usual = cli("train", recipe, "--device", "cpu", "--run-dir", "a")
    assert "epoch   1" in usual.err
    quiet = cli("train", recipe, "--quiet", "--device", "cpu", "--run-dir", "b")
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out == usual.out.replace("run          a\n", "run          b\n")
    # A finished run is reported. A quiet command does not make the next one quiet.
    again = [
        cli(*words, "--resume", "--device", "cpu", "--run-dir", "a")
        for words in (["train", recipe], ["-q", "train", recipe])
    ]
    assert ["nothing was done" in ended.err for ended in again] == [True, False]
    assert [ended.out for ended in again] == [usual.out, usual.out]


@pytest.mark.parametrize(
    "words",
    [["eval", "nowhere"], ["predict", "nowhere", "x.png"], ["train", "nowhere.yaml"], ["layers", "resnt18"]],
    ids=" ".join,
)
@pytest.mark.parametrize("quiet", ["-q", "--quiet"])
def test_errors_are_printed_under_quiet(words: list[str], quiet: str, cli: Any, chdir_tmp: Path) -> None:
    usual = cli(*words)
    for spelling in ([quiet, *words], [*words, quiet], [words[0], quiet, *words[1:]]):
        ended = cli(*spelling)
        assert (ended.code, ended.err) == (2, usual.err)
        assert ended.err


def test_warnings_are_printed_under_quiet(shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    Path("r.yaml").write_text(RECIPE.format(source=shapes).replace("freeze: none", "freeze: 3"))
    ended = cli("train", "r.yaml", "--device", "cpu", "-q")
    lines = ended.err.splitlines()
    assert lines
    assert all(line.startswith("warning: ") for line in lines)


def test_words_after_two_dashes_are_not_options(cli: Any, chdir_tmp: Path) -> None:
    ended = cli("predict", "nowhere", "--", "-q")
    assert "no such run directory" in ended.err


def test_quiet_draws_no_progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert output.shows_progress()
    output.set_quiet(True)
    try:
        assert not output.shows_progress()
        output.note("a note")
        assert not sys.stderr.getvalue()  # type: ignore[union-attr]  # pytest's replacement
    finally:
        output.set_quiet(False)


def test_help_lists_quiet(cli: Any) -> None:
    assert "--quiet" in cli("--help").out
