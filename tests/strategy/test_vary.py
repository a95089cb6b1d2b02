"""``compare --vary``: one recipe under several values of a key."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from finetune.disk.figure import write_figure
from finetune.errors import UserError
from finetune.recipe.load import parse_recipe
from finetune.recipe.variation import Variation, read_variation
from finetune.strategy.experiments.vary import choose_scale

RECIPE = """\
data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 8, threads: 1, phases: [{{freeze: none, epochs: 1, lr: 1e-3}}]}}
"""


def test_values_are_separated_by_commas_outside_of_brackets() -> None:
    assert read_variation("train.phases[0].freeze=0, 3,backbone") == Variation(
        "train.phases.0.freeze", ("0", "3", "backbone")
    )
    assert read_variation("train.augment.scale=[0.5, 1],[0.1,1]").values == ("[0.5, 1]", "[0.1,1]")
    assert read_variation("a.b={x: 1, y: [2, 3]},{}").values == ("{x: 1, y: [2, 3]}", "{}")


@given(st.text(alphabet="=,[]{}a1. \u202e", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        found = read_variation(text)
        assert found.key
        assert len(found.values) >= 2


def test_names_of_runs_are_fit_for_a_path() -> None:
    assert Variation("model.weights", ("none", "../runs/a")).names("r") == [
        "r-model.weights-none",
        "r-model.weights-.._runs_a",
    ]
    with pytest.raises(UserError, match="same run directory"):
        Variation("k", ("a/b", "a b")).names("r")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1e-4", "1e-2"), "log"),
        (("0", "1e-4", "1e-2"), "category"),
        (("0.1", "0.2"), "category"),
        (("sgd", "adamw"), "category"),
    ],
)
def test_numbers_that_span_decades_are_on_a_logarithmic_axis(values: tuple[str, ...], kind: str) -> None:
    recipes = [parse_recipe(RECIPE.format(source="x"), "r.yaml")] * len(values)
    scale = choose_scale(Variation("train.weight_decay", values), recipes)
    assert scale.kind == kind
    assert list(scale.places) == ([1e-4, 1e-2] if kind == "log" else list(range(len(values))))


@pytest.fixture
def recipe(chdir_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(chdir_tmp / "images", {"train": (8, 8), "val": (4, 4), "test": (6, 6)})
    path = chdir_tmp / "r.yaml"
    path.write_text(RECIPE.format(source=source))
    return path


def test_accuracy_and_time_against_the_number_of_frozen_layers(
    recipe: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def note(figure: Any, path: Path) -> None:
        drawn.append(figure)
        write_figure(figure, path)

    monkeypatch.setattr("finetune.strategy.experiments.vary.write_figure", note)
    words = ("compare", recipe, "--vary", "train.phases.0.freeze=backbone,0,2", "--device", "cpu")
    ended = cli(*words, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert answer["key"] == "train.phases.0.freeze"
    assert [run["value"] for run in answer["runs"]] == ["backbone", "0", "2"]
    places = [Path(run["run"]) for run in answer["runs"]]
    assert [place.name for place in places] == [
        f"r-train.phases.0.freeze-{value}" for value in ("backbone", "0", "2")
    ]
    first, *others = (run["top1"] for run in answer["runs"])
    assert [pair["difference"] for pair in answer["pairs"]] == pytest.approx(
        [top1 - first for top1 in others]
    )
    assert Path(answer["plot"]).read_bytes().startswith(b"\x89PNG")
    accuracy, time = drawn[0].axes
    by_place = sorted(zip([3, 0, 2], answer["runs"], strict=True), key=lambda pair: pair[0])
    (bars,) = accuracy.containers
    assert list(bars.lines[0].get_xdata()) == [0, 2, 3]
    assert list(bars.lines[0].get_ydata()) == pytest.approx([100 * run["top1"] for _, run in by_place])
    ends = [list(each[:, 1]) for each in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([100 * run["top1_low"], 100 * run["top1_high"]]) for _, run in by_place]
    assert list(time.lines[0].get_ydata()) == pytest.approx([run["seconds"] for _, run in by_place])
    assert [text.get_text() for text in accuracy.get_xticklabels()] == ["3\nbackbone", "0", "2"]
    assert accuracy.get_xlabel() == "frozen layers, of 3 before the head"
    # The time of the frozen layers counts, which run once before the first epoch.
    timing = [json.loads(line) for line in (places[0] / "timing.jsonl").read_text().splitlines()]
    assert timing[0]["features_seconds"] > 0
    assert answer["runs"][0]["seconds"] == pytest.approx(
        timing[0]["seconds"] + timing[0]["features_seconds"], abs=1e-3
    )
    # Once more: nothing is trained.
    before = [(place / "metrics.jsonl").stat().st_mtime_ns for place in places]
    again = cli(*words)
    assert again.code == 0, again.err
    assert again.err.count("nothing was done") == 3
    assert [(place / "metrics.jsonl").stat().st_mtime_ns for place in places] == before
    assert "difference from the first" in again.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--vary", "train.phases.0.lr=1e-3,abc"), "--vary train.phases.0.lr=abc: train.phases[0].lr"),
        (("--vary", "train.phases.0.lr=1e-3,0.001"), "the same recipe"),
        (("--vary", "train.phases.0.freeze=0,9"), "--vary train.phases.0.freeze=9: freeze: 9 is too large"),
        (("--vary", "train.phases.0.lr=1e-3"), "two values or more"),
        (("--vary", "train.batch_size=2,4", "--against", "scratch"), "--vary takes exactly one recipe"),
        (("--vary", "train.batch_size=2,4", "--set", "train.x=1"), "--set train.x=1"),
        (("--vary", "train.batch_size=2,4", "--plot", "x.abc"), "unknown figure format"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_before_anything_is_trained(
    recipe: Path, cli: Any, words: tuple[str, ...], message: str
) -> None:
    ended = cli("compare", recipe, *words, "--device", "cpu")
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not Path("runs").exists()
