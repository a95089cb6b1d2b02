"""``finetune.train``: the same bits and errors as the command, no output, and no trace in the process."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import finetune
from finetune.errors import DataError, RecipeError, RunDirError, UserError

CHANGES = {"train.phases.0.lr": 0.02, "train.phases.0.epochs": 1, "train.augment": {"flip": False}}
FLAGS = [
    word
    for text in ("train.phases.0.lr=2e-2", "train.phases.0.epochs=1", "train.augment={flip: false}")
    for word in ("--set", text)
]


def weights(run: Path) -> list[str]:
    files = sorted((run / "checkpoints").glob("*/model.safetensors"))
    assert files
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def test_api_and_command_train_the_same_bits(
    recipe: dict[str, Any], chdir_tmp: Path, cli: Callable[..., Any]
) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    ended = cli("train", "recipe.yaml", *FLAGS, "--run-dir", "command", "--device", "cpu")
    assert ended.code == 0, ended.err
    from_file = finetune.train("recipe.yaml", overrides=CHANGES, device="cpu")
    assert from_file.path == Path("runs/recipe")
    schema = finetune.load_recipe("recipe.yaml")
    for name, given in (("mapping", recipe), ("schema", schema)):
        run = finetune.train(given, name, overrides=CHANGES, device="cpu")
        assert weights(run.path) == weights(from_file.path) == weights(Path("command"))
        assert (run.path / "resolved.yaml").read_bytes() == Path("command/resolved.yaml").read_bytes()
    assert Path("runs/recipe/recipe.yaml").read_bytes() == Path("recipe.yaml").read_bytes()
    assert yaml.safe_load(Path("mapping/recipe.yaml").read_text()) == recipe


def test_a_run_has_its_numbers(trained: finetune.Run) -> None:
    lines = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    assert trained.epochs == 2
    assert trained.best.val_top1 == lines[trained.best.epoch - 1]["val_top1"]
    assert trained.test is not None
    assert (trained.test.top1, trained.test.n) == (lines[-1]["test_top1"], 12)
    assert trained.test.top1_low < trained.test.top1_high
    assert trained.load().classes == ("disc", "square")


def test_a_finished_run_is_resumed_refused_or_replaced(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = finetune.train(recipe, tmp_path / "run", overrides={"train.phases.0.epochs": 1})
    assert not first.already_finished
    with pytest.raises(RunDirError, match="holds a run"):
        finetune.train(recipe, tmp_path / "run")
    again = finetune.train(recipe, tmp_path / "run", overrides={"train.phases.0.epochs": 1}, resume=True)
    assert again.already_finished
    assert first.test is not None
    assert again.test is not None
    assert again.test.top1 == first.test.top1
    longer = finetune.train(recipe, tmp_path / "run", resume=finetune.Resume(extend=True))
    assert longer.epochs == 2
    with pytest.raises(UserError, match="choose one"):
        finetune.train(recipe, tmp_path / "run", resume=True, overwrite=True)


def test_wrong_overrides_are_all_reported(recipe: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"train.batch_size": 0, "train.phases.0.lr": "fast", "data.sauce": "x"}
    with pytest.raises(RecipeError) as caught:
        finetune.train(recipe, tmp_path / "run", overrides=wrong)
    assert [line.split(": ")[1] for line in caught.value.problems] == list(wrong)
    assert caught.value.problems[0].startswith("overrides: train.batch_size: must be a whole number")
    with pytest.raises(RecipeError, match=r"^overrides: train\.augment\.flip: "):
        finetune.train(recipe, tmp_path / "run", overrides={"train.augment": {"flip": "maybe"}})
    with pytest.raises(RecipeError, match=r"^overrides: 'train/lr' is not a key"):
        finetune.train(recipe, tmp_path / "run", overrides={"train/lr": 1})
    assert not (tmp_path / "run").exists()


def test_a_wrong_mapping_is_reported_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        finetune.train({"data": {"source": "digits"}, "model": {"backbone": "resnet81"}}, tmp_path / "run")
    assert caught.value.problems[0].startswith("recipe: model.backbone: unknown backbone 'resnet81'")


def test_what_cannot_be_trained_raises(recipe: dict[str, Any], chdir_tmp: Path) -> None:
    with pytest.raises(UserError, match="run_dir"):
        finetune.train(recipe)
    with pytest.raises(UserError, match="no such recipe"):
        finetune.train("photo")
    with pytest.raises(DataError):
        finetune.train(recipe, "run", overrides={"data.source": "nowhere"})
    with pytest.raises(UserError, match="no such device"):
        finetune.train(recipe, "run", device="tpu0")
    with pytest.raises(TypeError, match="mapping"):
        finetune.train(recipe, "run", overrides="train.batch_size=4")


def test_progress_is_reported_in_order_and_nothing_is_printed(
    recipe: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[finetune.ProgressEvent] = []
    finetune.train(recipe, tmp_path / "run", device="cpu", progress=events.append)
    assert capfd.readouterr() == ("", "")
    kinds = [event.kind for event in events]
    assert kinds == ["start", "phase", *["step"] * 4, "epoch", *["step"] * 4, "epoch"]
    assert dict(events[0].facts)["network"].startswith("resnet18")
    assert [(event.epoch, event.done, event.total) for event in events[2:6]] == [
        (1, done, 4) for done in (1, 2, 3, 4)
    ]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [dict(event.metrics) for event in events if event.kind == "epoch"] == lines[:2]


def test_an_exception_of_the_callback_ends_the_call_and_the_run_can_be_resumed(
    recipe: dict[str, Any], trained: finetune.Run, tmp_path: Path
) -> None:
    def stop(event: finetune.ProgressEvent) -> None:
        if event.kind == "epoch":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        finetune.train(recipe, tmp_path / "run", device="cpu", progress=stop)
    finetune.train(recipe, tmp_path / "run", device="cpu", resume=True)
    assert weights(tmp_path / "run") == weights(trained.path)


def process_state() -> dict[str, object]:
    return {
        "threads of torch": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "type": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "generator": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "signals": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "environment": dict(os.environ),
        "directory": Path.cwd(),
    }


@pytest.mark.parametrize("fails", [False, True])
def test_no_state_outlives_a_call(fails: bool, recipe: dict[str, Any], tmp_path: Path) -> None:
    before = process_state()
    changes: dict[str, Any] = {"train.threads": 2, "train.deterministic": True, "data.workers": 1}

    def callback(event: finetune.ProgressEvent) -> None:
        if fails and event.kind == "epoch":
            raise ValueError("failed")

    try:
        run = finetune.train(recipe, tmp_path / "run", overrides=changes, device="cpu", progress=callback)
        run.load(device="cpu").evaluate()
    except ValueError:
        assert fails
    assert process_state() == before


def test_training_in_another_thread(recipe: dict[str, Any], trained: finetune.Run, tmp_path: Path) -> None:
    """Where signal handlers cannot be installed."""
    found: list[object] = []

    def work() -> None:
        try:
            found.append(finetune.train(recipe, tmp_path / "run", device="cpu").load().evaluate().top1)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert trained.test is not None
    assert found == [trained.test.top1]
    assert weights(tmp_path / "run") == weights(trained.path)


def test_smoke(recipe: dict[str, Any], chdir_tmp: Path) -> None:
    run = finetune.train(recipe, "runs/tried", smoke=True, overrides={"data.source": "nowhere"})
    assert run.epochs >= 1
    with pytest.raises(UserError, match="take a recipe"):
        finetune.train("digits", smoke=True)
    with pytest.raises(UserError, match="take a recipe"):
        finetune.train("digits", resume=finetune.Resume(extend=True))
