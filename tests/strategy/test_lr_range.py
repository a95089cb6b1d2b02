"""The range test: its schedule, the longest fall against brute force, and an unchanged network."""

import json
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import FinetuneError, UserError
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import TrainSection
from finetune.strategy.experiments.lr_range import (
    RangeTest,
    Rise,
    draw,
    longest_fall,
    measure,
    range_test,
    smoothed,
    suggest,
)
from finetune.training.compute.precision import choose_compute
from finetune.training.setup.prepare import load_data, prepare

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 8, phases: [{{freeze: {freeze}, epochs: 1, lr: 1e-3}}]}}
"""


def test_the_rate_rises_by_equal_factors() -> None:
    rise = Rise(1e-6, 1.0, 7, base=1e-3)
    assert [rise.lr(step) for step in range(7)] == pytest.approx([10.0**power for power in range(-6, 1)])
    assert rise.factor(3) * 1e-3 == pytest.approx(rise.lr(3))


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_the_longest_fall_is_that_of_brute_force(values: list[float]) -> None:
    places = longest_fall(values)
    chosen = [values[place] for place in places]
    assert places == sorted(places)
    assert all(first > second for first, second in pairwise(chosen))
    longest = max(
        (n for n in range(len(values) + 1) for some in combinations(values, n) if _falls(some)), default=0
    )
    assert len(places) == longest


def _falls(values: tuple[float, ...]) -> bool:
    return all(first > second for first, second in pairwise(values))


def test_the_suggestion_is_in_the_fall() -> None:
    """Flat, then down from 1e-4 to 1e-2, then up."""
    rates = [10 ** (-6 + step / 10) for step in range(60)]
    losses = [2.0 - 1e-9 * step for step in range(20)]
    losses += [2.0 - 0.08 * step for step in range(1, 21)]
    losses += [0.4 + 0.3 * step for step in range(1, 21)]
    assert 1e-4 <= suggest(rates, losses) <= 1e-2
    with pytest.raises(FinetuneError, match="never fell"):
        suggest(rates, sorted(losses))


def test_smoothing_starts_without_a_bias() -> None:
    assert smoothed([3.0]) == pytest.approx([3.0])
    assert smoothed([2.0] * 10) == pytest.approx([2.0] * 10)
    assert smoothed([1.0, 0.0])[1] == pytest.approx(0.09 / 0.19)


@pytest.mark.parametrize("freeze", ["none", "backbone", "4"])
def test_the_network_does_not_change(shapes: Path, freeze: str) -> None:
    recipe = parse_recipe(RECIPE.format(source=shapes, freeze=freeze), "r.yaml")
    compute = choose_compute(torch.device("cpu"), TrainSection(precision="fp32", threads=1))
    setup = prepare(recipe, load_data(recipe.data, 0), compute)
    module = setup.network.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainable = [parameter.requires_grad for parameter in module.parameters()]
    test = measure(setup, Rise(1e-5, 1.0, 12, base=1e-3))
    assert 3 <= len(test.loss) <= 12
    assert len(test.lr) == len(test.loss) == len(test.smoothed)
    assert test.lr[0] == pytest.approx(1e-5)
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [parameter.requires_grad for parameter in module.parameters()] == trainable
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_command_makes_no_run(shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    Path("r.yaml").write_text(RECIPE.format(source=shapes, freeze="none"))
    ended = cli("lr", "r.yaml", "--steps", "15", "--high", "0.3", "--json", "--device", "cpu")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert 1e-6 <= answer["suggestion"] <= 0.3
    assert answer["recipe_lr"] == 1e-3
    assert [path.name for path in (chdir_tmp / "runs").iterdir()] == ["r-lr.png"]
    again = json.loads(cli("lr", "r.yaml", "--steps", "15", "--high", "0.3", "--json", "--device", "cpu").out)
    assert again == answer
    ended = cli("lr", "r.yaml", "--steps", "10", "--plot", "x.png", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "suggestion" in ended.out
    assert Path("x.png").is_file()


def test_wrong_input_is_refused(shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    Path("r.yaml").write_text(RECIPE.format(source=shapes, freeze="none"))
    assert cli("lr", "nothing.yaml").code == 2
    assert cli("lr", "r.yaml", "--steps", "3").code == 2
    ended = cli("lr", "r.yaml", "--low", "1", "--high", "0.1", "--device", "cpu")
    assert ended.code == 2
    assert "--low" in ended.err
    assert not Path("runs").exists()


def test_a_solved_head_has_no_rate_to_test(tmp_path: Path) -> None:
    text = RECIPE.format(source=tmp_path, freeze="backbone").replace("lr: 1e-3", "optimizer: lbfgs")
    with pytest.raises(UserError, match="no learning rate"):
        range_test(parse_recipe(text, "recipe.yaml"))


def test_the_group_whose_rate_varies_is_named(shapes: Path, chdir_tmp: Path, cli: Any) -> None:
    Path("r.yaml").write_text(RECIPE.format(source=shapes, freeze="backbone"))
    words = ["lr", "r.yaml", "--steps", "12", "--low", "1e-3", "--high", "0.3", "--device", "cpu"]
    words += ["--set", "train.phases.0.head_lr_mult=10"]
    answer = json.loads(cli(*words, "--json").out)
    assert (answer["group"], answer["head_lr_mult"]) == ("head", 10)
    assert answer["group_suggestion"] == pytest.approx(10 * answer["suggestion"])
    assert answer["fall_from"] <= answer["suggestion"] <= answer["fall_to"]
    shown = cli(*words)
    assert "the body is frozen; the head learns at 10 times that (head_lr_mult)" in shown.out
    assert "falls longest from" in shown.out


def example(group: str) -> RangeTest:
    rates = tuple(10 ** (step / 4 - 6) for step in range(20))
    losses = [1.0] * 5 + [1 - 0.07 * step for step in range(1, 11)] + [2.0] * 5
    fall = longest_fall(losses)
    return RangeTest(rates, tuple(losses), tuple(losses), suggest(rates, losses), tuple(fall), group, 10.0)


@pytest.mark.parametrize(("group", "factor"), [("head", 10), ("body", 1)])
def test_the_plot_shows_the_rate_of_the_group_and_the_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, factor: int
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "finetune.strategy.experiments.lr_range.write_figure", lambda figure, _: drawn.append(figure)
    )
    test = example(group)
    draw(test, "r.yaml", tmp_path / "x.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel().startswith(f"learning rate of the {group}")
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert f"its longest fall: {factor * test.fall_from:.1e} to {factor * test.fall_to:.1e}" in texts
    (suggested,) = [line for line in axes.lines if str(line.get_label()).startswith("suggestion")]
    assert list(suggested.get_xdata()) == [pytest.approx(factor * test.suggestion)]
