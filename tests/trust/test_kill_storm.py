"""The recipes and exit codes of `scripts/kill-storm`. The script itself runs for minutes, on demand."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from finetune.recipe.load import load_recipe


@pytest.fixture(scope="module")
def storm(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("kill-storm")


def test_kill_storm_has_recipes_of_every_kind(storm: ModuleType, tmp_path: Path) -> None:
    recipes = [load_recipe(path) for path in storm.written(tmp_path)]
    assert len(recipes) == 8
    optimizers = {phase.optimizer for recipe in recipes for phase in recipe.train.phases}
    assert optimizers == {"adamw", "sgd", "lbfgs"}
    assert {recipe.data.workers for recipe in recipes} == {0, 2}
    assert any(recipe.train.ema for recipe in recipes)
    assert any(recipe.train.max_steps for recipe in recipes)
    assert any(recipe.model.batchnorm_recalibrate for recipe in recipes)


def test_kill_storm_knows_the_exit_code_of_each_signal(storm: ModuleType) -> None:
    assert storm.answers(signal.SIGKILL) == {-9}
    assert storm.answers(signal.SIGHUP) == {-1, 129}
    assert storm.answers(signal.SIGINT) == {-2, 130}
    assert storm.answers(signal.SIGTERM) == {-15, 143}
    # A suspended run continues after SIGCONT.
    assert storm.answers(signal.SIGSTOP) == storm.answers(None) == set()
    assert {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP} == set(
        storm.STRIKES
    )
