"""A training session: what it writes when an epoch and a run end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.errors import RunDirError
from finetune.training.describe import describe_run
from finetune.training.run.directory import RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.session import EpochClock, Session


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session at the beginning of its run."""
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (4, 4), "val": (3, 3), "test": (3, 3)})
    setup = tiny.setup(tiny.recipe(source))
    with RunDir.open(tmp_path / "run") as run:
        run.begin(describe_run(setup, None, describe_environment(setup)))
        yield Session(setup, run)


def make_epoch(session: Session, *, save_rarely: bool = False, **facts: Any) -> None:
    session.position.made_step()
    session.end_epoch(facts, session.evaluate("val"), EpochClock(), save_rarely=save_rarely)


def lines(session: Session, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (session.run.path / name).read_text().splitlines()]


def saved(session: Session, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((session.run.checkpoints / file).read_text())
    return found


def test_epochs_and_the_test_result_are_written_and_saved(session: Session) -> None:
    make_epoch(session, note="first")
    make_epoch(session, note="second")  # the same weights: not better than the first
    assert (session.best.epoch, session.position.epochs_without_better) == (1, 1)
    assert saved(session, "best/score.json")["epoch"] == 1
    assert not saved(session, "last/state.json")["finished"]
    test = session.finish()
    assert test is not None
    first, second, last = lines(session, "metrics.jsonl")
    assert (first["epoch"], first["step"], first["note"]) == (1, 1, "first")
    assert (second["epoch"], second["step"], second["note"]) == (2, 2, "second")
    assert (last["split"], last["epoch"], last["test_n"]) == ("test", 1, 6)
    assert [each["epoch"] for each in lines(session, "timing.jsonl")] == [1, 2]
    state = saved(session, "last/state.json")
    assert state["finished"]
    assert state["metrics_lines"] == 3


def test_fast_epochs_are_saved_at_the_end_of_their_phase(session: Session) -> None:
    make_epoch(session)
    make_epoch(session, save_rarely=True)
    assert saved(session, "last/state.json")["epoch"] == 1
    session.end_phase()
    assert saved(session, "last/state.json")["epoch"] == 2


def test_evaluating_the_best_checkpoint_leaves_the_present_weights(session: Session) -> None:
    make_epoch(session)
    module = session.setup.evaluated
    for parameter in module.parameters():
        parameter.data.zero_()
    session.test()
    assert all(not bool(parameter.any()) for parameter in module.parameters())


def test_without_a_best_checkpoint_there_is_no_test(session: Session) -> None:
    with pytest.raises(RunDirError, match="the best checkpoint is gone"):
        session.test()
