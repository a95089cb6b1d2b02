"""A run stopped at any check of the signals and then resumed is bit-identical to an undisturbed run.

Each check in turn, not random ones: a training asks at so many places whether a signal has come, and is
stopped here at the first of them, at the second, and so on until it ends by itself. `scripts/kill-storm`
sends real signals, at random moments, to processes.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from finetune.errors import StoppedError
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.experiments.crossval import train_folds
from finetune.strategy.experiments.repeat import RunOptions, train_seeds
from finetune.training.progress import Progress
from stopped_runs import COUNTS, Stops, digests, draw_source

# Like COUNTS, with three steps per epoch and two batches each for val and test.
THOROUGH = {"train": (12, 6), "val": (4, 5), "test": (4, 4)}
BASE = """\
seed: 3
data: {source: SOURCE, image_size: 16, resize: 16, workers: WORKERS}
model: {backbone: resnet18, weights: SOURCE.safetensors, MODEL}
train: {batch_size: 6, TRAIN}
cache: {where: WHERE}
"""


def recipe(train: str, model: str = "", workers: int = 0, where: str = "memory") -> Callable[[Path], Recipe]:
    def read(source: Path) -> Recipe:
        text = BASE.replace("WORKERS", str(workers)).replace("WHERE", where)
        text = text.replace("MODEL", model).replace("TRAIN", train).replace("SOURCE", str(source))
        return parse_recipe(text, "recipe.yaml")

    return read


RECIPES = {
    "mixup, EMA, accumulation, clipping": recipe(
        "ema: 0.9, accumulate: 2, grad_clip_norm: 0.5, augment: {flip: true, mixup_alpha: 0.4}, "
        "phases: [{freeze: none, epochs: 2}]"
    ),
    "balanced sampler, early stopping": recipe(
        "sampler: balanced, loss: focal, select: balanced_accuracy, early_stopping: 1, optimizer: sgd, "
        "phases: [{freeze: none, epochs: 3, lr: 0.5}]"
    ),
    "EMA, recalibration": recipe("ema: 0.8, phases: [{freeze: 1, epochs: 2}]", "batchnorm_recalibrate: 6"),
    "recalibration without EMA": recipe("phases: [{freeze: none, epochs: 2}]", "batchnorm_recalibrate: 12"),
    "two loaders": recipe(
        "augment: {crop: random_resized, flip: true}, phases: [{freeze: none, epochs: 2}]", workers=2
    ),
    "views cached on disk, L2-SP": recipe(
        "l2_sp: {alpha: 0.1, beta: 0.01}, augment: {flip: true, crop: random_resized, views: 2}, "
        "phases: [{freeze: 2, epochs: 2}, {freeze: none, epochs: 1}]",
        where="disk",
    ),
    "frozen BatchNorm, hidden head": recipe(
        "label_smoothing: 0.1, phases: [{freeze: 1, epochs: 2}]", "batchnorm: frozen, head: {hidden: 5}"
    ),
    "step limits, dropout": recipe(
        "max_steps: 3, checkpoint_every_steps: 1, schedule: one_cycle, "
        "phases: [{freeze: backbone, epochs: 1}, {freeze: none, epochs: 2}]",
        "head: {dropout: 0.3}",
    ),
    "solved phases": recipe(
        "class_weights: {a: 3}, logit_adjust: 1, select: balanced_accuracy, "
        "phases: [{freeze: backbone, optimizer: lbfgs, weight_decay: 0.1}, "
        "{epochs: 1, freeze: 2, layer_decay: 0.7}, {epochs: 1, freeze: backbone, optimizer: sgd}]"
    ),
    "a solved head alone": recipe(
        "phases: [{freeze: backbone, optimizer: lbfgs, weight_decay: auto}]", where="disk"
    ),
    "refit: solved head, EMA, early stopping": recipe(
        "refit: true, ema: 0.5, early_stopping: 1, class_weights: balanced, augment: {flip: true}, "
        "phases: [{freeze: backbone, optimizer: lbfgs, weight_decay: auto}, {freeze: 2, epochs: 2}]"
    ),
    "solved at the end, EMA": recipe(
        "ema: 0.9, phases: [{freeze: none, epochs: 1}, "
        "{freeze: backbone, optimizer: lbfgs, weight_decay: 0.1}]"
    ),
}


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Stops:
    tiny.stand_in(monkeypatch)
    return Stops(monkeypatch)


def stopped_runs(stops: Stops, wanted: Recipe, folder: Path) -> Iterator[tuple[int, Path]]:
    """A run that was stopped at the first check, one at the second, and so on."""
    for at in itertools.count(1):
        run = folder / f"stopped-{at}"
        if stops.finishes(wanted, run, at):
            assert digests(run) == digests(folder / "whole")
            assert at > 3, "too few checks to show anything"
            return
        yield at, run


# For the slow test: each differs from another recipe in one point, or is killed in test_resume_matrix.py too.
ALIKE = ("recalibration without EMA", "two loaders")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in ALIKE else ()) for each in RECIPES]
)
def test_stopped_at_each_check_in_turn(name: str, stops: Stops, tmp_path: Path) -> None:
    wanted = RECIPES[name](draw_source(tmp_path, COUNTS))
    assert stops.finishes(wanted, tmp_path / "whole")
    expected = digests(tmp_path / "whole")
    seen: dict[str, int] = {}
    for at, run in stopped_runs(stops, wanted, tmp_path):
        # A resume reads only these files, so identical files lead to an identical end.
        state = repr(sorted(digests(run).items()))
        if state not in seen:
            assert stops.finishes(wanted, run, resume=True)
            assert digests(run) == expected, f"stopped at check {at}"
        seen[state] = at
        shutil.rmtree(run)
    assert len(seen) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_stopped_again_in_each_resume(name: str, stops: Stops, tmp_path: Path) -> None:
    """The second stop falls on each check of the resume in turn, and a third one right after it."""
    wanted = RECIPES[name](draw_source(tmp_path, THOROUGH))
    assert stops.finishes(wanted, tmp_path / "whole")
    expected = digests(tmp_path / "whole")
    for at, run in stopped_runs(stops, wanted, tmp_path):
        for again in itertools.count(1):
            second = tmp_path / "again"
            shutil.copytree(run, second)
            ended = stops.finishes(wanted, second, again, resume=True)
            if not ended and not stops.finishes(wanted, second, 1, resume=True):
                assert stops.finishes(wanted, second, resume=True)
            assert digests(second) == expected, f"stopped at check {at}, and at check {again} of the resume"
            shutil.rmtree(second)
            if ended:
                break
        shutil.rmtree(run)


@pytest.mark.parametrize("turn", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["folds", pytest.param("seeds", marks=pytest.mark.slow)])
def test_several_runs_stopped_at_each_check(how: str, turn: bool, stops: Stops, tmp_path: Path) -> None:
    """Finished runs stay, stopped runs continue, missing runs start, all bit-identical.

    Stopped at the first check, its resume at the second, the resume of that at the third; or each in turn.
    """
    wanted = RECIPES["a solved head alone"](draw_source(tmp_path, COUNTS))
    train = train_folds if how == "folds" else train_seeds

    def ends(place: Path, at: int = 0, resume: bool = False) -> bool:
        stops.set(at)
        try:
            for _ in train(wanted, place, 2, RunOptions("cpu", resume=resume), lambda _place: Progress()):
                pass
        except StoppedError:
            return False
        return True

    assert ends(tmp_path / "whole")
    expected = {own.name: digests(own) for own in (tmp_path / "whole").iterdir()}
    assert len(expected) == 2
    for at in itertools.count(1):
        place = tmp_path / (f"stopped-{at}" if turn else "stopped")
        ended = ends(place, at, resume=not turn)
        if ended or turn:
            assert ended or ends(place, resume=True)
            assert {own.name: digests(own) for own in place.iterdir()} == expected, f"stopped at check {at}"
        if ended:
            assert at > 4
            return


def test_a_solved_head_whose_val_was_cut_short_counts(stops: Stops, tmp_path: Path) -> None:
    """As in advice: the features are cached, and the signal arrives after the head is solved."""
    wanted = RECIPES["a solved head alone"](draw_source(tmp_path, COUNTS))
    assert stops.finishes(wanted, tmp_path / "whole")
    # Checks while computing its features, then during val.
    for at in itertools.count(1):
        run = tmp_path / f"stopped-{at}"
        assert not stops.finishes(wanted, run, at)
        state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())
        if state["phase_step"]:
            break
    # Also the file that earlier versions saved here.
    assert (state["epoch_step"], state["epoch"], state["best"]) == (1, 0, None)
    assert stops.finishes(wanted, run, resume=True)
    assert digests(run) == digests(tmp_path / "whole")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
