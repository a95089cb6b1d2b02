"""Positions that a run of the recipe cannot reach are refused; all others are accepted."""

import dataclasses
from typing import Any

import pytest

from finetune.errors import CheckpointError
from finetune.recipe.load import parse_recipe
from finetune.training.run.check_position import refuse_impossible_position
from finetune.training.run.position import LARGEST, Best, Position
from finetune.training.setup.plan import PhasePlan, plan_phases
from finetune.training.steps.loop import Totals

SOLVED = "{freeze: backbone, optimizer: lbfgs}"


def plans(phases: str, more: str = "") -> tuple[list[PhasePlan], int | None]:
    recipe = parse_recipe(
        f"data: {{source: digits}}\nmodel: {{backbone: resnet18}}\ntrain: {{{more} phases: [{phases}]}}\n",
        "r",
    )
    return plan_phases(recipe.train, batches_per_epoch=3), recipe.train.early_stopping


def walk(planned: list[PhasePlan], patience: int | None) -> list[Position]:
    """Every position of a run, made as training makes it; with early stopping each epoch is worse."""
    at, found = Position(), []
    for plan in planned:
        if plan.number != at.phase:
            at.begin_phase(plan.number)
        while plan.steps > at.phase_step and (patience is None or at.epochs_without_better < patience):
            found.append(dataclasses.replace(at))
            for _ in range(min(plan.steps_per_epoch, plan.steps - at.phase_step)):
                at.made_step()
                at.totals = Totals(images=at.epoch_step)
                found.append(dataclasses.replace(at))
            at.epoch += 1
            at.phase_epoch += 1
            at.metrics_lines += 1
            better = at.best is None or (patience is None and at.epoch % 2 == 1)
            at.epochs_without_better = 0 if better else at.epochs_without_better + 1
            at.best = Best(at.epoch, 0.5, 1.0) if better else at.best
            at.begin_epoch()
        found.append(dataclasses.replace(at))
    at.finished = True
    at.metrics_lines += 1
    return [*found, at]


PHASES = {
    "one": ("{epochs: 2}", ""),
    "three": ("{freeze: backbone, epochs: 2}, {epochs: 1}, {freeze: 2, epochs: 2}", ""),
    "solved": (SOLVED, ""),
    "solved first": (f"{SOLVED}, {{epochs: 2}}", ""),
    "solved between": (f"{{epochs: 2}}, {SOLVED}, {{epochs: 1}}", ""),
    "accumulated": ("{epochs: 2}, {epochs: 2}", "accumulate: 2,"),
    "limited within an epoch": ("{epochs: 1}, {epochs: 3}", "max_steps: 7,"),
    "limited to a phase": ("{epochs: 2}, {epochs: 3}", "max_steps: 6,"),
    "early stopping": (f"{{epochs: 5}}, {SOLVED}, {{epochs: 3}}", "early_stopping: 2,"),
}


@pytest.mark.parametrize("name", PHASES)
def test_every_position_of_a_run_is_accepted(name: str) -> None:
    planned, patience = plans(*PHASES[name])
    positions = walk(planned, patience)
    assert len(positions) > 2
    for position in positions:
        again = Position.from_dict(position.to_dict(), "state.json")
        refuse_impossible_position(again, planned, patience, "state.json")


# Each of these alone is wrong wherever a run stands.
WRONG: list[dict[str, Any]] = [
    {"phase": 7},
    {"epoch_step": 10**9},
    {"global_step": 10**9},
    {"phase_step": 10**6},
    {"phase_epoch": 50},
    {"epoch": 90},
    {"metrics_lines": 10**7},
    {"best": Best(60, 0.5, 1.0)},
    {"epochs_without_better": 40},
]


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_one_number_altered_is_refused(name: str, wrong: dict[str, Any]) -> None:
    planned, patience = plans(*PHASES[name])
    for position in walk(planned, patience):
        with pytest.raises(CheckpointError, match=r"no state of a run of this recipe.*--overwrite"):
            refuse_impossible_position(
                dataclasses.replace(position, **wrong), planned, patience, "state.json"
            )


@pytest.mark.parametrize("name", ["phase", "epoch", "phase_epoch", "phase_step", "epoch_step", "global_step"])
@pytest.mark.parametrize("by", [-1, 1])
def test_one_number_off_by_one_is_refused(name: str, by: int) -> None:
    """As a position that lost a step, or an epoch, is."""
    planned, patience = plans(*PHASES["three"])
    for position in walk(planned, patience):
        other = dataclasses.replace(position, **{name: getattr(position, name) + by})
        with pytest.raises(CheckpointError):
            refuse_impossible_position(
                Position.from_dict(other.to_dict(), "state.json"), planned, patience, "state.json"
            )


@pytest.mark.parametrize("number", [10**30, LARGEST + 1, -1, 1.5, True, None])
@pytest.mark.parametrize(
    "name", ["phase", "epoch", "epoch_step", "global_step", "metrics_lines", "ema_updates"]
)
def test_an_entry_that_is_not_a_count_is_refused(name: str, number: Any) -> None:
    with pytest.raises(CheckpointError, match="training state"):
        Position.from_dict({**Position().to_dict(), name: number}, "state.json")


def test_an_epoch_that_an_earlier_version_left_open_is_refused() -> None:
    """Its epoch was never closed, and the next phase began in the midst of its first."""
    planned, _ = plans(f"{SOLVED}, {{epochs: 2}}")
    carried = Position()
    carried.made_step()
    carried.begin_phase(1)
    for _ in range(4):
        with pytest.raises(CheckpointError, match="lost an epoch"):
            refuse_impossible_position(carried, planned, None, "state.json")
        carried.made_step()
    # Nor once that epoch is over, with a line of its own.
    carried.begin_epoch()
    carried.epoch = carried.phase_epoch = carried.metrics_lines = 1
    carried.phase_step, carried.global_step, carried.best = 2, 3, Best(1, 0.5, 1.0)
    with pytest.raises(CheckpointError, match="lost an epoch"):
        refuse_impossible_position(carried, planned, None, "state.json")
    # Nor at the end, which had no best where there was no other phase.
    with pytest.raises(CheckpointError, match="no best epoch"):
        refuse_impossible_position(
            Position(phase_step=1, global_step=1, finished=True), plans(SOLVED)[0], None, "s"
        )


def test_forced_runs_may_have_counts_of_several_recipes() -> None:
    planned, _ = plans("{epochs: 3}, {epochs: 2}")
    position = walk(planned, None)[9]
    shorter, _ = plans("{epochs: 1}, {epochs: 1}")
    with pytest.raises(CheckpointError):
        refuse_impossible_position(position, shorter, None, "state.json")
    refuse_impossible_position(position, shorter, None, "state.json", exact=False)
    with pytest.raises(CheckpointError, match="phase 3 of 2"):
        refuse_impossible_position(
            dataclasses.replace(position, phase=2), shorter, None, "state.json", exact=False
        )
