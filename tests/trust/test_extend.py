"""`--extend` trains a finished run for more epochs, and refuses a different training."""

import itertools
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from finetune.disk.atomic import write_atomic
from finetune.errors import CheckpointError, FinishedRunError, StoppedError, UserError
from finetune.recipe.load import dump_recipe, parse_recipe
from finetune.recipe.schema import Recipe
from finetune.training.fit import Result, fit
from finetune.training.run import directory
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from stopped_runs import COUNTS, Stops, digests, draw_source

RECIPE = """\
seed: 3
data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}
model: {{backbone: resnet18, weights: none, batchnorm_momentum: keep}}
train: {{batch_size: 6, {train}}}
cache: {{where: memory}}
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Recipe]:
    """``read("phases: [{epochs: 2}]")``: a recipe with that as its train section."""
    tiny.stand_in(monkeypatch)
    source = draw_source(tmp_path, COUNTS)

    def parse(train: str) -> Recipe:
        return parse_recipe(RECIPE.format(source=source, train=train), "recipe.yaml")

    return parse


def train(recipe: Recipe, run: Path, **options: Any) -> Result:
    with RunDir.open(run, resume=options.get("resume", False)) as opened:
        return fit(recipe, opened, device="cpu", continuation=Continuation(**options))


def longer(recipe: Recipe, run: Path, **options: Any) -> Result:
    return train(recipe, run, resume=True, extend=True, **options)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rates(run: Path) -> list[float]:
    return [next(iter(line["lr"].values())) for line in lines(run) if "lr" in line]


@pytest.mark.parametrize("schedule", ["constant", "step", "constant, warmup_epochs: 0.5"])
@pytest.mark.parametrize("more", ["", "ema: 0.9, ", "optimizer: sgd, l2_sp: {alpha: 0.1, beta: 0.1}, "])
def test_schedules_without_a_length_continue_as_in_one_long_run(
    schedule: str, more: str, read: Any, tmp_path: Path
) -> None:
    train_section = f"{more}step_epochs: 1, schedule: {schedule}, phases: [{{epochs: EPOCHS, freeze: 1}}]"
    if "l2_sp" in more:
        train_section = train_section.replace(", freeze: 1", "")
    short, long = (read(train_section.replace("EPOCHS", str(count))) for count in (1, 3))
    train(long, tmp_path / "at once")
    train(short, tmp_path / "run")
    assert longer(long, tmp_path / "run").epochs == 3
    kept = [name for name in digests(tmp_path / "run") if name.endswith(".safetensors")]
    assert len(kept) >= 3
    at_once, extended = digests(tmp_path / "at once"), digests(tmp_path / "run")
    assert {name: extended[name] for name in kept} == {name: at_once[name] for name in kept}
    epochs = [line for line in lines(tmp_path / "run") if "split" not in line]
    assert epochs == [line for line in lines(tmp_path / "at once") if "split" not in line]
    # The first test result stays, before the second one.
    assert [place for place, line in enumerate(lines(tmp_path / "run")) if "split" in line] == [1, 4]


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.6), ("one_cycle", 0.3)])
def test_schedules_with_a_length_restart(
    schedule: str, end: float, read: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = f"schedule: {schedule}, phases: [{{epochs: EPOCHS, lr: 0.25}}]"
    run = tmp_path / "run"
    for epochs in (2, 4, 6):
        recipe = read(section.replace("EPOCHS", str(epochs)))
        (longer if epochs > 2 else train)(recipe, run)
    found = rates(run)
    assert found[:2] == found[2:4] == found[4:]
    assert 0 < found[1] < end * found[0]
    entries = json.loads((run / "environment.json").read_text())["extended"]
    assert [(each["epoch"], each["step"], each["begins_again"]) for each in entries] == [
        (2, 4, True),
        (4, 8, True),
    ]
    assert entries[0]["changed"] == ["recipe train.phases[0].epochs: 2 before, 4 now"]
    # Finished, with the lengths of its recipe.
    before = digests(run)
    assert train(recipe, run, resume=True).already_finished
    assert digests(run) == before


EXTENSIONS = {
    "cosine, EMA": (
        "ema: 0.9, phases: [{epochs: 1}]", "ema: 0.9, phases: [{epochs: 3}]",
    ),
    "after early stopping": (
        "early_stopping: 1, optimizer: sgd, phases: [{freeze: backbone, epochs: 5, lr: 1e-12}]",
        "early_stopping: 1, optimizer: sgd, phases: [{freeze: backbone, epochs: 5, lr: 1e-12}]",
    ),
    "phases after a solved one": (
        "phases: [{freeze: backbone, optimizer: lbfgs}]",
        "phases: [{freeze: backbone, optimizer: lbfgs}, {freeze: 2, epochs: 1}, "
        "{freeze: backbone, optimizer: lbfgs}]",
    ),
    "a longer and another": (
        "schedule: one_cycle, phases: [{freeze: backbone, epochs: 1}, {epochs: 1}]",
        "schedule: one_cycle, phases: [{freeze: backbone, epochs: 1}, {epochs: 2}, {freeze: 2, epochs: 1}]",
    ),
    "a phase after early stopping": (
        "early_stopping: 1, optimizer: sgd, phases: [{freeze: backbone, epochs: 5, lr: 1e-12}]",
        "early_stopping: 1, optimizer: sgd, phases: [{freeze: backbone, epochs: 5, lr: 1e-12}, {epochs: 1}]",
    ),
    "more steps": (
        "max_steps: 2, phases: [{epochs: 3}]", "max_steps: 5, phases: [{epochs: 3}]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_stopped_extension_resumes_bit_identical(
    name: str, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each check of the signal in turn."""
    short, long = map(read, EXTENSIONS[name])
    stops = Stops(monkeypatch)
    train(short, tmp_path / "short")
    shutil.copytree(tmp_path / "short", tmp_path / "whole")
    result = longer(long, tmp_path / "whole")
    assert result.epochs > len(lines(tmp_path / "short")) - 1
    expected = digests(tmp_path / "whole")
    for at in itertools.count(1):
        run = tmp_path / f"stopped-{at}"
        shutil.copytree(tmp_path / "short", run)
        stops.made, stops.at = 0, at
        try:
            longer(long, run)
        except Exception as stopped:
            assert "stopped by" in str(stopped)  # noqa: PT017
        else:
            break
        # By either command.
        stops.at = 0
        if at % 2:
            longer(long, run)
        else:
            train(long, run, resume=True)
        assert digests(run) == expected, f"stopped at check {at}"
    assert at > 4


@pytest.mark.parametrize(
    ("after", "phases"),
    [
        # Early stopping ended it after two of five epochs: one more without improvement, ...
        ("[{freeze: backbone, epochs: 5, lr: 1e-12}]", [0, 0, 0]),
        ("[{freeze: backbone, epochs: 9, lr: 1e-12}]", [0, 0, 0]),
        # ... or none, if only later phases are new.
        ("[{freeze: backbone, epochs: 5, lr: 1e-12}, {epochs: 1}]", [0, 0, 1]),
        ("[{freeze: backbone, epochs: 6, lr: 1e-12}, {epochs: 1}]", [0, 0, 0, 1]),
    ],
)
def test_extending_after_early_stopping(after: str, phases: list[int], read: Any, tmp_path: Path) -> None:
    section = "early_stopping: 1, optimizer: sgd, phases: "
    train(read(section + "[{freeze: backbone, epochs: 5, lr: 1e-12}]"), tmp_path / "run")
    longer(read(section + after), tmp_path / "run")
    assert [line["phase"] for line in lines(tmp_path / "run") if "phase" in line] == phases
    assert train(read(section + after), tmp_path / "run", resume=True).already_finished


def test_a_kill_while_the_extension_is_recorded(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    short, long = read("phases: [{epochs: 1}]"), read("phases: [{epochs: 2}]")
    train(short, tmp_path / "short")
    shutil.copytree(tmp_path / "short", tmp_path / "whole")
    longer(long, tmp_path / "whole")
    expected = digests(tmp_path / "whole")
    real = write_atomic
    for at in itertools.count(1):
        run = tmp_path / f"killed-{at}"
        shutil.copytree(tmp_path / "short", run)
        calls = itertools.count(1)

        def cut(path: Path, content: bytes, calls: Any = calls, at: int = at) -> None:
            if next(calls) == at:
                raise Killed
            real(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(directory, "write_atomic", cut)
            try:
                longer(long, run)
            except Killed:
                pass
            else:
                break
        longer(long, run)
        assert digests(run) == expected, f"killed at write {at}"
    assert at > 4


def test_a_refused_extension_says_what_to_do(read: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = read("phases: [{epochs: 2}]")
    train(recipe, run)
    before = digests(run)
    with pytest.raises(UserError, match=r"no more epochs than this run has trained.*epochs=4"):
        longer(recipe, run)
    with pytest.raises(UserError, match="no more epochs"):
        longer(read("max_steps: 2, phases: [{epochs: 3}]"), run)
    with pytest.raises(FinishedRunError, match="adds epochs to the last phase"):
        longer(read("phases: [{epochs: 3, freeze: 1}]"), run)
    with pytest.raises(UserError, match="no more epochs"):
        longer(read("phases: [{epochs: 1}]"), run)
    assert digests(run) == before
    cut = tmp_path / "within an epoch"
    train(read("max_steps: 3, phases: [{epochs: 4}]"), cut)
    with pytest.raises(UserError, match="ended within an epoch"):
        longer(read("max_steps: 6, phases: [{epochs: 4}]"), cut)


@pytest.mark.parametrize("harm", [3, [3], [{}], [{"phase": 0}], {"phase": 9}, {"step": -1}, {"goes_on": 1}])
def test_a_damaged_history_is_refused(harm: Any, read: Any, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", read("phases: [{epochs: 2}]")
    train(read("phases: [{epochs: 1}]"), run)
    longer(recipe, run)
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    if isinstance(harm, dict):
        environment["extended"][0] |= harm
    else:
        environment["extended"] = harm
    path.write_text(json.dumps(environment))
    with pytest.raises(CheckpointError, match="extended"):
        train(recipe, run, resume=True)


def test_another_rate_for_the_added_epochs_needs_force_and_is_recorded(read: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(read("schedule: constant, phases: [{epochs: 1, lr: 0.5}]"), run)
    other = read("schedule: constant, phases: [{epochs: 2, lr: 0.25}]")
    with pytest.raises(FinishedRunError, match="--force extends the run"):
        longer(other, run)
    longer(other, run, force=True)
    assert rates(run)[1] == rates(run)[0] / 2
    environment = json.loads((run / "environment.json").read_text())
    assert environment["forced"][0]["changed"] == ["recipe train.phases[0].lr: 0.5 before, 0.25 now"]
    assert environment["extended"][0]["epoch"] == 1


def test_an_unfinished_run_is_finished_before_it_is_extended(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = Stops(monkeypatch)
    short, long = read("phases: [{epochs: 2}]"), read("phases: [{epochs: 3}]")
    assert not stops.finishes(short, tmp_path / "run", 2)
    stops.at = 0
    with pytest.raises(UserError, match="let this one finish first"):
        longer(long, tmp_path / "run")
    assert longer(short, tmp_path / "run").epochs == 2
    assert longer(long, tmp_path / "run").epochs == 3


CHANGES = [
    ["train.phases.0.epochs=2"],
    ["train.phases.0.epochs=2", "train.phases.0.lr=2e-3"],
    ["train.phases.1={epochs: 1}"],
    ["train.optimizer=sgd", "train.phases.0.epochs=2"],
    ["train.label_smoothing=0.1"],
    ["seed=9"],
    ["data.image_size=24"],
    ["model.head.dropout=0.5"],
    ["train.ema=0.9"],
]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("changes", CHANGES, ids=" ".join)
def test_a_changed_key_is_refused_with_the_command_to_use(
    changes: list[str], force: bool, read: Any, chdir_tmp: Path, cli: Any
) -> None:
    Path("r e.yaml").write_text(
        dump_recipe(read("phases: [{epochs: 1, lr: 1e-3}]")).replace("resize: 16", "resize: auto")
    )
    command = ["train", "r e.yaml", "--device", "cpu", "--run-dir", "a run"]
    assert cli(*command).code == 0
    before = {path: path.read_bytes() for path in Path("a run").rglob("*") if path.is_file()}
    sets = [word for each in changes for word in ("--set", each)]
    ended = cli(*command, "--resume", *(["--force"] if force else []), *sets)
    assert ended.code == 2
    assert ended.out == ""
    assert "continuing" not in ended.err
    listed = changes[0].partition("=")[0].replace("phases.0", "phases[0]").removesuffix(".1")
    assert f"recipe {listed}: " in ended.err
    assert {path: path.read_bytes() for path in Path("a run").rglob("*") if path.is_file()} == before
    if "model." in changes[0]:
        assert "--overwrite" in ended.err
        return
    proposed = shlex.split(ended.err.splitlines()[-1])
    again = cli(*proposed[proposed.index("train") :])
    assert again.code == 0, again.err
    if "--extend" in proposed:
        assert len(lines(Path("a run"))) == 4
    else:
        assert "a run-2" in proposed
        assert (Path("a run-2") / "checkpoints" / "best").is_dir()


def test_the_command_extends_a_run(read: Any, chdir_tmp: Path, cli: Any) -> None:
    Path("r.yaml").write_text(dump_recipe(read("phases: [{epochs: 1, lr: 1e-3}]")))
    assert cli("train", "r.yaml", "--extend").code == 2
    assert cli("train", "r.yaml").code == 0
    assert "--seeds goes with" in cli("train", "r.yaml", "--seeds", "2", "--resume", "--extend").err
    ended = cli("train", "digits", "--resume", "--extend")
    assert ended.code == 2
    assert "finetune" in ended.err
    assert "train runs/digits/recipe.yaml --run-dir runs/digits --resume --extend --set" in ended.err
    ended = cli("train", "r.yaml", "--resume", "--extend", "--set", "train.phases.0.epochs=3")
    assert ended.code == 0, ended.err
    assert (
        "phase 1 continues with epochs 2 to 3: lr restarts at 0.001 and falls to 0 along a cosine"
        in ended.err
    )
    assert "best epoch" in ended.out
    # Another machine or library is accepted if there is nothing to do.
    environment = json.loads(Path("runs/r/environment.json").read_text())
    environment["versions"]["pillow"] = "1.0"
    Path("runs/r/environment.json").write_text(json.dumps(environment))
    ended = cli("train", "r.yaml", "--resume", "--set", "train.phases.0.epochs=3")
    assert ended.code == 0, ended.err
    assert "nothing was done" in ended.err


HEAD = "{freeze: backbone, optimizer: lbfgs, weight_decay: auto}"
# Phases after a solved head, and a recipe for the head alone.
LATER = {
    "augmentation": "augment: {flip: true, crop: random_resized}",
    "smoothing, decay": "label_smoothing: 0.2, weight_decay: 0.3",
    "selection": "select: loss, early_stopping: 1",
    "another optimizer": "optimizer: sgd",
    "the last epoch": "select: last",
}


# Each takes ten seconds: the everyday run leaves these out.
SLOW = ("smoothing, decay", "selection", "another optimizer")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in LATER]
)
def test_an_open_run_extends_to_the_bits_of_the_whole_recipe(
    name: str, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any check, in the head's run or in its continuation."""
    first = read(f"phases: [{HEAD}]")
    whole = read(f"{LATER[name]}, phases: [{HEAD}, {{freeze: 2, epochs: 2}}]")
    stops = Stops(monkeypatch)
    train(whole, tmp_path / "at once")
    expected = digests(tmp_path / "at once")
    kept = [each for each in expected if each.endswith(".safetensors")]
    for at in itertools.count(1):
        run = tmp_path / f"stopped-{at}"
        stops.made, stops.at, stopped = 0, at, False
        for recipe, options in ((first, {"leave_open": True}), (whole, {"extend": True})):
            for _ in range(2):
                try:
                    train(recipe, run, resume=run.exists(), **options)
                    break
                except StoppedError:
                    stops.at, stopped = 0, True
        found = digests(run)
        assert {each: found[each] for each in kept} == {each: expected[each] for each in kept}, at
        assert lines(run) == lines(tmp_path / "at once")
        assert (run / "resolved.yaml").read_text() == (tmp_path / "at once" / "resolved.yaml").read_text()
        if not stopped:
            break
    assert at > 6


def test_an_open_run_is_complete_and_not_finished(read: Any, tmp_path: Path) -> None:
    first, run = read(f"phases: [{HEAD}]"), tmp_path / "run"
    result = train(first, run, leave_open=True)
    assert (result.epochs, result.test, result.already_finished) == (1, None, False)
    assert not any("split" in line for line in lines(run))
    assert (run / "checkpoints" / "best" / "model.safetensors").is_file()
    # Without further phases, it is tested and finished.
    ended = longer(first, run)
    assert ended.test is not None
    assert [line.get("split") for line in lines(run)] == [None, "test"]
    assert train(first, run, resume=True).already_finished


@pytest.mark.parametrize(
    "other",
    [
        f"class_weights: balanced, phases: [{HEAD}, {{epochs: 1}}]",
        f"augment: {{flip: true, views: 2}}, phases: [{HEAD}, {{epochs: 1}}]",
        "phases: [{freeze: backbone, optimizer: lbfgs, weight_decay: 0.5}, {epochs: 1}]",
        f"ema: 0.9, phases: [{HEAD}, {{epochs: 1}}]",
        "phases: [{freeze: backbone, epochs: 1}, {epochs: 1}]",
    ],
)
def test_keys_of_a_solved_head_cannot_change(other: str, read: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(read(f"phases: [{HEAD}]"), run, leave_open=True)
    before = digests(run)
    with pytest.raises(UserError, match=r"recipe train\."):
        longer(read(other), run)
    assert digests(run) == before


def test_after_gradient_steps_only_the_length_may_change(read: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(read("phases: [{freeze: backbone, epochs: 1}]"), run, leave_open=True)
    with pytest.raises(UserError, match="label_smoothing"):
        longer(read("label_smoothing: 0.2, phases: [{freeze: backbone, epochs: 1}, {epochs: 1}]"), run)
    assert longer(read("phases: [{freeze: backbone, epochs: 1}, {epochs: 1}]"), run).epochs == 2
