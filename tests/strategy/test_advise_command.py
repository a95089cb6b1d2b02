"""The commands ``finetune advise`` and ``finetune train IMAGES``."""

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.recipe.load import load_recipe
from finetune.strategy.advice import advise, copies, measure, rule
from finetune.strategy.advice import settings as advised_settings

Cli = Callable[..., Any]
TINY = ("--set", "data.image_size=32")
# Fast, and sufficient for these tests.
UNTRAINED = ("--backbone", "shufflenet_v2_x0_5", "--set", "model.weights=none")


@pytest.fixture
def photos(shapes: Path, chdir_tmp: Path) -> Path:
    """``photos``, with three folders of splits, in the working directory."""
    shutil.copytree(shapes, chdir_tmp / "photos")
    return Path("photos")


def test_advice_has_reasons_and_a_recipe_that_can_be_run(photos: Path, cli: Cli) -> None:
    ended = cli("advise", photos, *UNTRAINED, *TINY, "-o", "advised.yaml")
    assert ended.code == 0, ended.err
    for heading in ("advice ", "because ", "size ", "similarity ", "features ", "augment ", "time "):
        assert f"\n{heading}" in f"\n{ended.out}"
    assert "32 training images in 2 classes of 16" in ended.out
    recipe = load_recipe(Path("advised.yaml"))
    assert (recipe.data.source, recipe.data.image_size) == ("photos", 32)
    assert recipe.train.phases[0].optimizer == "lbfgs"
    # The second time, the features come from the cache, and the advice is the same.
    again = cli("advise", photos, *UNTRAINED, *TINY, "--json")
    found = json.loads(again.out)
    assert (found["facts"]["computed"], found["facts"]["cached"]) == (0, 32)
    assert found["facts"]["train"] == 32
    assert len(found["facts"]["depths"]) == 4
    assert (found["facts"]["uneven"], found["correction"]) == (None, "none")
    assert yaml.safe_load(found["recipe"]) == yaml.safe_load(Path("advised.yaml").read_text())
    taken = cli("advise", photos, "-o", "advised.yaml")
    assert taken.code == 2
    assert "already exists" in taken.err


def test_val_and_test_are_counted_but_not_read(photos: Path, cli: Cli) -> None:
    for split in ("val", "test"):
        for path in (photos / split).rglob("*.png"):
            path.write_bytes(b"no image")
    ended = cli("advise", photos, *UNTRAINED, *TINY, "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)["facts"]
    assert (facts["train"], facts["val"], facts["test"]) == (32, 12, 12)


def test_a_class_of_few_images_is_no_obstacle(
    photos: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SAMPLE", 8)
    monkeypatch.setattr(copies, "COPIED", 5)
    monkeypatch.setattr(copies, "FEWEST_COPIED", 1)
    rare = photos / "train" / "rare"
    shutil.copytree(photos / "train" / "disc", rare)
    for split in ("val", "test"):
        shutil.copytree(photos / split / "disc", photos / split / "rare")
    for path in sorted(rare.iterdir())[3:]:
        path.unlink()
    ended = cli("advise", photos, *UNTRAINED, *TINY, "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)["facts"]
    assert (facts["classes"], facts["fewest"]) == (3, 3)
    assert facts["uneven"]["ratio"] == pytest.approx(16 / 3)
    for path in sorted(rare.iterdir())[1:]:
        path.write_bytes(b"no image")
    skipping = cli("advise", photos, *UNTRAINED, *TINY, "--set", "data.on_bad_image=skip", "--json")
    assert skipping.code == 0, skipping.err
    counts = json.loads(skipping.out)["facts"]
    # The two unreadable images are neither computed nor cached.
    assert (counts["computed"], counts["cached"]) == (0, 33)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere",), "nowhere"),
        (("photos", "--backbone", "resnet81"), "Did you mean 'resnet18'?"),
        (("photos", "--set", "train.batch_size=4"), "advice chooses this key"),
        (("photos", "-o", "no/such/folder.yaml"), "create the folder no/such first"),
        (("photos", "--backbone", "squeezenet1_1", *UNTRAINED[2:], *TINY), "takes a map"),
    ],
)
def test_wrong_input_is_refused(words: tuple[str, ...], says: str, photos: Path, cli: Cli) -> None:
    ended = cli("advise", *words)
    assert ended.code == 2
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_images_alone_are_examined_advised_on_and_trained(photos: Path, cli: Cli) -> None:
    cut = photos / "train" / "disc" / "disc_00.png"
    cut.write_bytes(cut.read_bytes()[:60])
    ended = cli("train", f"{photos}/", *TINY)
    assert ended.code == 0, ended.err
    assert "doctor       truncated" in ended.err
    # The backbone is reported first.
    assert ended.err.startswith("backbone     efficientnet_lite0 (the default, whose weights come with the")
    assert "\nadvice " in f"\n{ended.out}"
    assert "test top-1" in ended.out
    run = Path("runs/photos")
    assert f"the recipe that repeats it: {run}/recipe.yaml" in ended.err
    text = (run / "recipe.yaml").read_text()
    assert text.startswith("# doctor: 1 image cannot be read")
    assert yaml.safe_load(text)["model"]["backbone"] == "efficientnet_lite0"
    assert yaml.safe_load(text)["data"]["on_bad_image"] == "skip"
    repeated = cli("train", run / "recipe.yaml", "--run-dir", "runs/repeated")
    assert repeated.code == 0, repeated.err
    assert weights(run) == weights(Path("runs/repeated"))
    taken = cli("train", photos)
    assert taken.code == 2
    assert "--resume" in taken.err
    finished = cli("train", photos, "--resume")
    assert finished.code == 0
    assert "this run is finished" in finished.err


def test_a_backbone_that_is_asked_for_is_not_replaced(photos: Path, cli: Cli) -> None:
    """Weights that cannot be downloaded are an error, and nothing is trained."""
    ended = cli("train", photos, *TINY, "--set", "model.backbone=resnet18")
    assert ended.code == 2
    assert ended.err.startswith("backbone     resnet18 (as asked for)")
    assert "the weights of resnet18" in ended.err
    assert not Path("runs/photos/recipe.yaml").exists()


@pytest.fixture
def uncertain(photos: Path) -> Path:
    """``photos`` with wrong labels, so that advice is to tune after the solved head."""
    for number, path in enumerate(sorted((photos / "train" / "disc").iterdir())[::3]):
        path.rename(photos / "train" / "square" / f"from-disc-{number}.png")
    for split in ("train", "val", "test"):
        for folder in (photos / split).iterdir():
            for path in sorted(folder.iterdir()):
                for copy in range(2):
                    shutil.copyfile(path, path.with_name(f"{path.stem}-{copy}.png"))
    return photos


def test_advised_training_continues_from_the_solved_head(
    uncertain: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop during the measurements, the first model is a usable run."""
    undisturbed = cli("train", uncertain, *TINY, "--run-dir", "undisturbed")
    assert undisturbed.code == 0, undisturbed.err
    assert undisturbed.err.index("the head is solved") < undisturbed.err.index("at several depths")
    recipe = load_recipe(Path("undisturbed/recipe.yaml"))
    assert [phase.optimizer for phase in recipe.train.phases] == ["lbfgs", "adamw"]
    # Printed once, although the run has two parts.
    assert undisturbed.err.count("network    efficientnet_lite0") == 1

    def stop(first: object, recipe: object, progress: Callable[[str, int, int], None], *_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        progress("at several depths", 1, 2)

    with monkeypatch.context() as patch:
        patch.setattr(advise, "measure_after", stop)
        stopped = cli("train", uncertain, *TINY)
    assert stopped.code == 130
    assert "the first model can be used as it is" in stopped.err
    evaluated = cli("eval", "runs/photos", "--json")
    assert evaluated.code == 0, evaluated.err
    resumed = cli("train", uncertain, "--resume")
    assert resumed.code == 0, resumed.err
    # The expected duration is measured again.
    one, other = (
        [line for line in (run / "recipe.yaml").read_text().splitlines() if not line.startswith("# time:")]
        for run in (Path("runs/photos"), Path("undisturbed"))
    )
    assert one == other
    for file in ("resolved.yaml", "splits.csv", "metrics.jsonl"):
        assert (Path("runs/photos") / file).read_bytes() == (Path("undisturbed") / file).read_bytes(), file
    assert weights(Path("runs/photos")) == weights(Path("undisturbed"))
    # The recipe alone gives the same bits, and the run is finished.
    repeated = cli("train", "undisturbed/recipe.yaml", "--run-dir", "repeated")
    assert repeated.code == 0, repeated.err
    assert weights(Path("repeated")) == weights(Path("undisturbed"))
    assert "nothing was done" in cli("train", uncertain, "--resume").err


def test_training_from_scratch_replaces_the_first_model(
    photos: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = rule.Row("always", lambda facts: True, rule.Strategy.scratch, "for the test")
    monkeypatch.setattr(rule, "RULE", (scratch,))
    monkeypatch.setattr(advised_settings, "epochs_for", lambda strategy, train: 2)
    ended = cli("train", photos, *TINY)
    assert ended.code == 0, ended.err
    run = Path("runs/photos")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["model"]["weights"] == "none"
    phases = [json.loads(line).get("phase") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert phases == [0, 0, None]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "checkpoints" / "best" / "model.safetensors").read_bytes()).hexdigest()


def test_a_run_is_not_images(photos: Path, cli: Cli) -> None:
    run = Path("runs/r")
    run.mkdir(parents=True)
    (run / "resolved.yaml").write_text("seed: 0\n")
    ended = cli("train", run)
    assert ended.code == 2
    assert f"finetune train {run}/recipe.yaml --run-dir {run} --resume" in ended.err


@pytest.mark.parametrize("option", [("--smoke",), ("--seeds", "2")])
def test_options_that_need_a_recipe_say_so(option: tuple[str, ...], photos: Path, cli: Cli) -> None:
    ended = cli("train", photos, *option)
    assert ended.code == 2
    assert "finetune advise" in ended.err
