"""Resuming a run whose files or settings changed, are missing or are damaged."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.training import fit as fit_module
from finetune.training.session import Session

RECIPE = """\
data: {source: SOURCE, image_size: 32, resize: 32, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train:
  batch_size: 8
  checkpoint_every_steps: 1
  phases: [{freeze: none, epochs: 3, lr: 1e-3}]
"""


class Cut(BaseException):
    """Simulates a kill of the process."""


def bits(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }


def promised(run: Path) -> dict[str, str]:
    return {
        name: digest
        for name, digest in bits(run).items()
        if name == "metrics.jsonl" or name.startswith(("checkpoints/best/", "checkpoints/last/"))
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(shapes, folder / "images")
    (folder / "recipe.yaml").write_text(RECIPE.replace("SOURCE", str(folder / "images")))
    return folder


def train(cli: Any, place: Path, run: Path, *words: str) -> Any:
    return cli("train", place / "recipe.yaml", "--run-dir", run, "--device", "cpu", *words)


@pytest.fixture(scope="module")
def parts(place: Path) -> dict[str, Path]:
    """Runs after kills: complete, in the middle of an epoch, between the saves at its end."""
    from finetune.recipe.load import load_recipe
    from finetune.training.run.directory import RunDir

    recipe = load_recipe(place / "recipe.yaml")
    given = (place / "recipe.yaml").read_bytes()

    def cut(run: Path, name: str, count: int, before: bool) -> None:
        real, calls = getattr(Session, name), list[Any]()

        def counted(*words: Any, **options: Any) -> Any:
            calls.append(None)
            if len(calls) == count and before:
                raise Cut
            result = real(*words, **options)
            if len(calls) == count:
                raise Cut
            return result

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, name, counted)
            with RunDir.open(run) as opened, pytest.raises(Cut):
                fit_module.fit(recipe, opened, recipe_file=given, device="cpu")

    with RunDir.open(place / "whole") as opened:
        fit_module.fit(recipe, opened, recipe_file=given, device="cpu")
    # 32 training images: four steps per epoch; every fourth save of `last` ends an epoch.
    cut(place / "mid", "save_last", 6, before=False)
    cut(place / "between", "save_best", 1, before=True)
    return {name: place / name for name in ("whole", "mid", "between")}


@pytest.fixture
def take(parts: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        shutil.copytree(parts[name], tmp_path / name)
        return tmp_path / name

    return copy


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["mid", "between"])
def test_a_resumed_run_is_bit_identical(name: str, take: Any, parts: Any, place: Path, cli: Any) -> None:
    run = take(name)
    ended = train(cli, place, run, "--resume")
    assert ended.code == 0, ended.err
    assert promised(run) == promised(parts["whole"])


@pytest.mark.parametrize("name", ["mid", "between", "whole"])
def test_a_damaged_last_falls_back_to_the_one_before(
    name: str, take: Any, parts: Any, place: Path, cli: Any
) -> None:
    run = take(name)
    flip(run / "checkpoints" / "last" / "model.safetensors")
    ended = train(cli, place, run, "--resume")
    assert ended.code == 0, ended.err
    assert "using the checkpoint before it" in ended.err
    assert promised(run) == promised(parts["whole"])
    assert not list(run.rglob(".tmp-*"))


def test_without_a_usable_last_resume_is_an_error(take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    for name in ("last", "last.previous"):
        flip(run / "checkpoints" / name / "state.json")
    before = bits(run)
    ended = train(cli, place, run, "--resume")
    assert ended.code == 2
    assert "no intact one before it" in ended.err
    assert bits(run) == before


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_lost_best_is_an_error_before_training_goes_on(harm: str, take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    best = run / "checkpoints" / "best"
    flip(best / "model.safetensors") if harm == "flip" else shutil.rmtree(best)
    ended = train(cli, place, run, "--resume")
    assert ended.code == 2
    assert "best" in ended.err
    assert "--overwrite" in ended.err


def test_a_finished_run_is_left_alone_even_by_force(take: Any, place: Path, cli: Any) -> None:
    run = take("whole")
    before = bits(run)
    for words in (["--resume"], ["--resume", "--force"]):
        ended = train(cli, place, run, *words)
        assert ended.code == 0, ended.err
        assert bits(run) == before
    for words in (["--resume", "--set", "seed=9"], ["--resume", "--force", "--set", "seed=9"], ["--force"]):
        ended = train(cli, place, run, *words)
        assert ended.code == 2
        assert "continuing" not in ended.err
    assert bits(run) == before


def test_resume_lists_changes_and_force_continues(take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    environment = json.loads((run / "environment.json").read_text())
    environment["versions"]["pillow"] = "1.0"
    environment["threads"] = 1
    (run / "environment.json").write_text(json.dumps(environment))
    words = ("--set", "train.phases.0.lr=2e-3", "--set", "train.optimizer=sgd")
    before = bits(run)
    ended = train(cli, place, run, "--resume", *words)
    assert ended.code == 2
    assert "train.phases[0].lr: 0.001 before, 0.002 now" in ended.err
    assert "versions.pillow: '1.0' before" in ended.err
    assert "--force" in ended.err
    assert bits(run) == before
    ended = train(cli, place, run, "--resume", "--force", *words)
    assert ended.code == 0, ended.err
    assert "versions.pillow: '1.0' before" in ended.err
    written = json.loads((run / "environment.json").read_text())
    assert written["forced"][0]["step"] == 6
    assert any("lr" in line for line in written["forced"][0]["changed"])
    assert train(cli, place, run, "--resume", *words).code == 0


def test_changed_images_are_detected(take: Any, place: Path, cli: Any, parts: Any) -> None:
    run = take("mid")
    path = place / "images" / "train" / "disc" / "disc_03.png"
    original = path.read_bytes()
    try:
        flip(path)
        ended = train(cli, place, run, "--resume")
        assert ended.code == 2
        assert "images: train: 1 image changed ('train/disc/disc_03.png')" in ended.err
        path.unlink()
        ended = train(cli, place, run, "--resume")
        assert ended.code == 2
        assert "images: train: 1 image missing ('train/disc/disc_03.png')" in ended.err
        ended = train(cli, place, run, "--resume", "--force")
        assert ended.code == 0, ended.err
        assert (run / "splits.csv").read_text().count("train/disc/") == 15
        assert train(cli, place, run, "--resume").code == 0
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("key", ["model.backbone=resnet18", "train.ema=0.9"])
def test_changes_that_force_cannot_override(key: str, take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    ended = train(cli, place, run, "--resume", "--force", "--set", key)
    assert ended.code == 2
    assert f"--force does not help where recipe {key.partition('=')[0]} changed" in ended.err


def test_other_classes_are_refused_even_by_force(take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    moved = [(place / "images" / split / "disc", place / "images" / split / "disk") for split in
             ("train", "val", "test")]  # fmt: skip
    for old, new in moved:
        old.rename(new)
    try:
        ended = train(cli, place, run, "--resume", "--force")
    finally:
        for old, new in moved:
            new.rename(old)
    assert ended.code == 2
    assert "classes[0]: 'disc' before, 'disk' now" in ended.err


def test_resume_without_a_checkpoint_starts_the_run(
    place: Path, cli: Any, parts: Any, tmp_path: Path
) -> None:
    ended = train(cli, place, tmp_path / "new", "--resume")
    assert ended.code == 0, ended.err
    assert promised(tmp_path / "new") == promised(parts["whole"])


def test_a_missing_environment_file_is_an_error(take: Any, place: Path, cli: Any) -> None:
    run = take("mid")
    (run / "environment.json").write_text('{"threads": "many"}')
    assert train(cli, place, run, "--resume").code == 2
    (run / "environment.json").unlink()
    assert train(cli, place, run, "--resume").code == 2


@pytest.mark.parametrize(
    "state",
    [{"global_step": "x"}, {"epoch": -1}, {"format": 9}, {"best": 3}, {"totals": {"loss": "a"}}, {"new": 1}],
)
def test_a_state_of_another_kind_is_refused(state: Any, take: Any, place: Path, cli: Any) -> None:
    from finetune.checkpoint.manifest import digest

    run = take("mid")
    for name in ("last", "last.previous"):
        folder = run / "checkpoints" / name
        document = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(document | state))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["sha256"]["state.json"] = digest(folder / "state.json")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    ended = train(cli, place, run, "--resume")
    assert ended.code == 2
    assert "training state" in ended.err
