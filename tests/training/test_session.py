"""A training session: what it writes when an epoch and a run end."""

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.recipe.load import parse_recipe
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.describe import describe_run
from finetune.training.run.directory import RunDir
from finetune.training.run.environment import describe_environment
from finetune.training.session import EpochClock, Session
from finetune.training.setup.prepare import load_data, prepare


def begin(session: Session) -> None:
    environment = describe_environment(session.setup)
    session.run.begin(describe_run(session.setup, None, environment))


def make_epoch(session: Session, **facts: Any) -> None:
    session.position.made_step()
    session.end_epoch(facts, session.evaluate("val"), EpochClock())


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_a_session_writes_epochs_and_ends_with_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.stand_in(monkeypatch)
    source = tiny.draw_images(tmp_path / "images", {"train": (4, 4), "val": (3, 3), "test": (3, 3)})
    recipe = parse_recipe(
        f"data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}\n"
        f"model: {{backbone: {tiny.STANDS_FOR}, weights: none}}\n",
        "recipe.yaml",
    )
    compute = choose_compute(pick_device("cpu"), recipe.train)
    setup = prepare(recipe, load_data(recipe.data, recipe.seed), compute)
    with RunDir.open(tmp_path / "run") as run:
        session = Session(setup, run)
        begin(session)
        make_epoch(session, note="first")
        make_epoch(session, note="second")  # the same weights: not better than the first
        assert (session.best.epoch, session.position.epochs_without_better) == (1, 1)
        assert not session.position.finished
        test = session.finish()
    assert test is not None
    first, second, last = lines(run.path, "metrics.jsonl")
    assert (first["epoch"], first["step"], first["note"]) == (1, 1, "first")
    assert (second["epoch"], second["step"], second["note"]) == (2, 2, "second")
    assert (last["split"], last["epoch"], last["test_n"]) == ("test", 1, 6)
    assert [each["epoch"] for each in lines(run.path, "timing.jsonl")] == [1, 2]
    state = json.loads((run.path / "checkpoints" / "last" / "state.json").read_text())
    assert state["finished"]
    assert state["metrics_lines"] == 3
