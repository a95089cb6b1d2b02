"""The path and spelling of a source do not change the data; a run keeps its splits if the data changes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Cli = Callable[..., Any]
RECIPE = """\
data: {source: SOURCE, image_size: 32, resize: 32, workers: 0, test_fraction: 0.3, val_fraction: 0.2}
model: {backbone: shufflenet_v2_x0_5, weights: none}
train:
  batch_size: 16
  phases: [{freeze: none, epochs: EPOCHS, lr: 1e-3}]
"""
PER_CLASS = 24


def put_noise(root: Path, seed: int = 0) -> Path:
    """Images of noise, all different."""
    draw = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            pixels = draw.integers(0, 256, (36, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


def write_recipe(place: Path, source: str, epochs: int = 1) -> Path:
    place.write_text(RECIPE.replace("SOURCE", source).replace("EPOCHS", str(epochs)))
    return place


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with ``noise/``, ``recipe.yaml`` and the run ``runs/recipe`` of it."""
    from finetune.recipe.load import load_recipe
    from finetune.training.fit import fit
    from finetune.training.run.directory import RunDir

    place = tmp_path_factory.mktemp("same")
    put_noise(place / "noise")
    recipe = write_recipe(place / "recipe.yaml", "noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        with RunDir.open(place / "runs" / "recipe") as run:
            fit(load_recipe(recipe), run, recipe_file=recipe.read_bytes(), device="cpu")
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, as on another machine: nothing is at the path of the run's data."""
    shutil.copytree(trained, tmp_path / "place", symlinks=True)
    environment = tmp_path / "place" / "runs" / "recipe" / "environment.json"
    document = json.loads(environment.read_text())
    document["data_source"]["absolute"] = str(tmp_path / "place" / "noise")
    environment.write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def recorded(run: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    with (run / "splits.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["split"]].append(row["path"])
    return found


def evaluated(cli: Cli, *words: str | Path) -> tuple[dict[str, Any], list[str], str]:
    """The output of eval, the images it evaluated (as class/name), and its warnings."""
    ended = cli("eval", "runs/recipe", "--json", "--predictions", "judged.csv", *words)
    assert ended.code == 0, ended.err
    with open("judged.csv", newline="") as file:  # noqa: PTH123
        judged = ["/".join(Path(row["path"]).parts[-2:]) for row in csv.DictReader(file)]
    return json.loads(ended.out), judged, ended.err


@pytest.mark.parametrize(
    "spelling", ["noise", "noise/", "./noise", "../place/noise", "{here}/noise", "{here}/noise/", "link"]
)
def test_any_spelling_of_the_folder_gives_the_same_data(spelling: str, place: Path, cli: Cli) -> None:
    (place / "link").symlink_to("noise")
    expected = recorded(place / "runs/recipe")
    for split in ("test", "train", "val"):
        _, judged, _ = evaluated(cli, "--data", spelling.format(here=place), "--split", split)
        assert judged == expected[split]
    assert evaluated(cli, "--data", spelling.format(here=place))[1] == expected["test"]


@pytest.mark.parametrize("kind", ["moved", "copied", "table", "other names"])
def test_the_same_images_at_another_path_give_the_same_data(kind: str, place: Path, cli: Cli) -> None:
    other = place / "other"
    (shutil.move if kind == "moved" else shutil.copytree)(place / "noise", other)
    data = other
    if kind == "table":
        data = place / "labels.csv"
        lines = [f"{path.relative_to(place)},{path.parent.name}" for path in sorted(other.rglob("*.png"))]
        data.write_text("path,label\n" + "\n".join(lines))
    elif kind == "other names":
        for path in list(other.rglob("*.png")):
            path.rename(path.with_name(f"IMG {path.name}"))
    found, judged, _ = evaluated(cli, "--data", data)
    assert [name.replace("IMG ", "") for name in judged] == recorded(place / "runs/recipe")["test"]
    assert found["split"] == "test"
    assert found["images"] == {"missing": 0, "changed": 0, "new": 0}


def test_a_run_moved_with_its_images_finds_them(place: Path, cli: Cli, monkeypatch: Any) -> None:
    shutil.move(place, place.with_name("elsewhere"))
    run = place.with_name("elsewhere") / "runs/recipe"
    for here in (place.with_name("elsewhere"), place.parent):
        monkeypatch.chdir(here)
        ended = cli("eval", run, "--json")
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["n"] == len(recorded(run)["test"])


def test_another_working_directory_gives_the_same_data(
    place: Path, cli: Cli, tmp_path: Path, monkeypatch: Any
) -> None:
    """Another folder of the same name is there; it is not the run's."""
    expected = evaluated(cli)[0]["top1"]
    (tmp_path / "away").mkdir()
    put_noise(tmp_path / "away" / "noise", seed=9)
    monkeypatch.chdir(tmp_path / "away")
    ended = cli("eval", place / "runs/recipe", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["top1"] == expected
    shutil.rmtree(place / "noise")
    ended = cli("eval", place / "runs/recipe", "--json")
    assert ended.code == 2
    assert str(place / "noise") in ended.err
    assert "holds other images" in ended.err
    assert "--data" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_deleting_an_image_moves_no_other_to_another_split(split: str, place: Path, cli: Cli) -> None:
    expected = recorded(place / "runs/recipe")
    gone = expected[split][0]
    (place / "noise" / gone).unlink()
    found, judged, err = evaluated(cli)
    assert judged == [name for name in expected["test"] if name != gone]
    assert found["images"] == {"missing": 1, "changed": 0, "new": 0}
    assert f"{split}: 1 image missing ('{gone}')" in err
    ended = cli("eval", "runs/recipe", "--strict")
    assert ended.code == 2
    assert f"{split}: 1 image missing ('{gone}')" in ended.err
    assert ended.out == ""


def test_changed_new_and_missing_images_are_counted(place: Path, cli: Cli) -> None:
    expected = recorded(place / "runs/recipe")["test"]
    missing, changed = expected[0], expected[1]
    (place / "noise" / missing).unlink()
    Image.new("RGB", (36, 36)).save(place / "noise" / changed)
    Image.new("RGB", (36, 36), "red").save(place / "noise" / "cat" / "new.png")
    found, judged, err = evaluated(cli)
    assert judged == expected[2:]
    assert found["images"] == {"missing": 1, "changed": 1, "new": 1}
    for words in (f"1 image missing ('{missing}')", f"1 image changed ('{changed}')", "1 image new"):
        assert words in err
    assert f"{len(expected) - 2} of {len(expected)} recorded images are evaluated" in err


def test_without_a_change_strict_passes(place: Path, cli: Cli) -> None:
    assert cli("eval", "runs/recipe", "--strict", "--min-top1", "0").code == 0


def test_an_empty_split_is_an_error(place: Path, cli: Cli) -> None:
    for name in recorded(place / "runs/recipe")["test"]:
        (place / "noise" / name).unlink()
    ended = cli("eval", "runs/recipe", "--min-top1", "0")
    assert ended.code == 2
    assert "no image of test" in ended.err


def test_eval_on_other_data_leaves_out_images_seen_in_training(place: Path, cli: Cli) -> None:
    """Ten of the run's images, of all splits, under other names, among many others."""
    other = put_noise(place / "other", seed=5)
    expected = recorded(place / "runs/recipe")
    seen = [*expected["train"][:3], expected["val"][0]]
    for number, name in enumerate([*seen, expected["test"][0]]):
        shutil.copy(place / "noise" / name, other / Path(name).parent / f"copy{number}.png")
    found, judged, err = evaluated(cli, "--data", other)
    assert found["images"] == {"seen": 4}
    assert found["n"] == 2 * PER_CLASS + 1
    assert [name for name in judged if "copy" in name] == [f"{Path(expected['test'][0]).parent}/copy4.png"]
    assert "4 of 53 images" in err
    assert evaluated(cli, "--data", other, "--include-seen")[0]["n"] == 2 * PER_CLASS + 5
    ended = cli("eval", "runs/recipe", "--data", other, "--strict")
    assert ended.code == 2
    assert "4 of 53 images" in ended.err


def test_training_images_alone_are_refused(place: Path, cli: Cli) -> None:
    for name in recorded(place / "runs/recipe")["train"][:6]:
        target = place / "seen" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "noise" / name, target)
    ended = cli("eval", "runs/recipe", "--data", "seen")
    assert ended.code == 2
    assert "all 6 images are in the run's train or val" in ended.err
    assert evaluated(cli, "--data", "seen", "--include-seen")[0]["n"] == 6


def test_include_seen_needs_data(place: Path, cli: Cli) -> None:
    assert cli("eval", "runs/recipe", "--include-seen").code == 2
    assert cli("eval", "runs/recipe", "--data", "noise", "--include-seen", "--strict").code == 2
    found, _, err = evaluated(cli, "--data", "noise", "--include-seen")
    assert found["n"] == 2 * PER_CLASS
    assert "these numbers are too good" in err


def bits(run: Path) -> dict[str, bytes]:
    checkpoints = {path.name: path for path in (run / "checkpoints").rglob("*.safetensors")}
    return {name: path.read_bytes() for name, path in checkpoints.items()} | {
        "metrics": (run / "metrics.jsonl").read_bytes()
    }


@pytest.mark.parametrize("spelling", ["./noise", "{here}/noise/", "moved", "table"])
def test_resume_accepts_any_spelling_of_the_folder(spelling: str, place: Path, cli: Cli) -> None:
    recipe = write_recipe(place / "two.yaml", "noise", epochs=2)
    assert cli("train", recipe, "--device", "cpu").code == 0
    whole = bits(place / "runs/two")
    run = stopped_after_one_epoch(place, recipe)
    source = spelling.format(here=place)
    if spelling == "moved":
        shutil.move(place / "noise", place / "moved")
    elif spelling == "table":
        lines = [
            f"{path.relative_to(place)},{path.parent.name}"
            for path in sorted((place / "noise").rglob("*.png"), reverse=True)
        ]
        (place / "table.csv").write_text("path,label\n" + "\n".join(lines))
        source = "table.csv"
    words = ("--run-dir", run, "--resume", "--device", "cpu", "--set", f"data.source={source}")
    ended = cli("train", recipe, *words)
    assert ended.code == 0, ended.err
    assert bits(run) == whole
    # From here on, the run knows where its images are.
    assert cli("eval", run).code == 0


def stopped_after_one_epoch(place: Path, recipe: Path) -> Path:
    """A run of ``recipe`` that a kill ended right after its first epoch was saved."""
    from finetune.recipe.load import load_recipe
    from finetune.training import fit as fit_module
    from finetune.training.run.directory import RunDir
    from finetune.training.session import Session

    class Cut(BaseException):
        pass

    run, real = place / "runs" / "stopped", Session.save_best

    def cut(session: Session) -> None:
        real(session)
        raise Cut

    with pytest.MonkeyPatch.context() as patch, RunDir.open(run) as opened:
        patch.setattr(Session, "save_best", cut)
        with pytest.raises(Cut):
            fit_module.fit(load_recipe(recipe), opened, recipe_file=recipe.read_bytes(), device="cpu")
    return run


def test_resume_from_another_working_directory(
    place: Path, cli: Cli, tmp_path: Path, monkeypatch: Any
) -> None:
    recipe = write_recipe(place / "two.yaml", "noise", epochs=2)
    run = stopped_after_one_epoch(place, recipe)
    (tmp_path / "away").mkdir()
    put_noise(tmp_path / "away" / "noise", seed=9)
    monkeypatch.chdir(tmp_path / "away")
    ended = cli("train", run / "recipe.yaml", "--run-dir", run, "--resume", "--device", "cpu")
    assert ended.code == 0, ended.err


def test_resume_names_what_differs(place: Path, cli: Cli) -> None:
    recipe = write_recipe(place / "two.yaml", "noise", epochs=2)
    run = stopped_after_one_epoch(place, recipe)
    expected = recorded(run)
    (place / "noise" / expected["train"][0]).unlink()
    Image.new("RGB", (36, 36), "red").save(place / "noise" / "cat" / "new.png")
    words = ("train", recipe, "--run-dir", run, "--resume", "--device", "cpu")
    ended = cli(*words)
    assert ended.code == 2
    assert f"images: train: 1 image missing ('{expected['train'][0]}')" in ended.err
    assert "images: 1 image new ('cat/new.png')" in ended.err
    ended = cli(*words, "--force")
    assert ended.code == 0, ended.err
    # No image from train or val is in test now, and the new image is in no split.
    assert recorded(run) == expected | {"train": expected["train"][1:]}


def test_other_images_are_refused_by_resume(place: Path, cli: Cli) -> None:
    recipe = write_recipe(place / "two.yaml", "noise", epochs=2)
    run = stopped_after_one_epoch(place, recipe)
    put_noise(place / "other", seed=5)
    words = ("--run-dir", run, "--resume", "--device", "cpu", "--set", "data.source=other")
    ended = cli("train", recipe, *words)
    assert ended.code == 2
    assert "changed" in ended.err
    assert cli("train", recipe, *words[:-1], "data.source=gone").code == 2


def test_runs_of_a_folder_and_of_its_copy_are_compared(place: Path, cli: Cli) -> None:
    shutil.copytree(place / "noise", place / "copy")
    write_recipe(place / "copy.yaml", "copy")
    ended = cli("compare", "runs/recipe", "copy.yaml", "--json", "--device", "cpu")
    assert ended.code == 0, ended.err
    one, other = json.loads(ended.out)["runs"]
    assert one["top1"] == other["top1"]
    assert one["n"] == other["n"] == len(recorded(place / "runs/recipe")["test"])
    (place / "noise" / recorded(place / "runs/recipe")["train"][0]).unlink()
    ended = cli("compare", "runs/recipe", "runs/copy", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "1 image missing" in ended.err


def test_export_checks_on_the_recorded_val(place: Path, cli: Cli, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli("export", place / "runs/recipe", "--format", "safetensors")
    assert ended.code == 0, ended.err
    assert "val images" in ended.out


def test_predict_says_which_images_the_run_has_seen(place: Path, cli: Cli, tmp_path: Path) -> None:
    ended = cli("predict", "runs/recipe", "noise", "--jsonl")
    assert ended.code == 0, ended.err
    seen = {name: len(found) for name, found in recorded(place / "runs/recipe").items()}
    assert (
        f"{seen['train'] + seen['val']} of {2 * PER_CLASS} images are in the run's train or val" in ended.err
    )
    others = put_noise(tmp_path / "others", seed=4)
    assert "train or val" not in cli("predict", "runs/recipe", others, "--jsonl").err
    (place / "runs/recipe/splits.csv").write_text("harmed")
    ended = cli("predict", "runs/recipe", others, "--jsonl")
    assert ended.code == 0
    assert "not a table of splits" in ended.err


def test_a_run_is_probed_on_its_own_splits(place: Path, cli: Cli) -> None:
    expected = recorded(place / "runs/recipe")
    (place / "noise" / expected["test"][0]).unlink()
    ended = cli("probe", "runs/recipe", "--json", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "1 image missing" in ended.err
    assert {row["when"] for row in json.loads(ended.out)} == {"before", "after"}


@pytest.mark.parametrize("vary", [False, True])
def test_seeds_use_one_split_unless_vary_split_is_given(vary: bool, place: Path, cli: Cli) -> None:
    words = ["--vary-split"] if vary else []
    ended = cli("train", "recipe.yaml", "--run-dir", "runs/seeds", "--seeds", "2", "--device", "cpu", *words)
    assert ended.code == 0, ended.err
    first, second = (recorded(place / f"runs/seeds/seed-{seed}") for seed in (0, 1))
    assert (first == second) == (not vary)
    assert ("and in their splits" in ended.err) == vary
    weights = [
        (place / f"runs/seeds/seed-{seed}/checkpoints/last/model.safetensors").read_bytes() for seed in (0, 1)
    ]
    assert weights[0] != weights[1]


def test_vary_split_requires_seeds(place: Path, cli: Cli) -> None:
    assert cli("train", "recipe.yaml", "--vary-split").code == 2


def test_folds_of_changed_images_are_refused(place: Path, cli: Cli) -> None:
    words = ("cv", "recipe.yaml", "--folds", "3", "--device", "cpu")
    assert cli(*words).code == 0
    assert cli(*words, "--resume").code == 0
    shutil.rmtree(place / "runs" / "recipe-cv" / "fold-2")
    for name in ("00", "01", "02"):
        (place / "noise" / "cat" / f"{name}.png").unlink()
    ended = cli(*words, "--resume")
    assert ended.code == 2
    assert "--overwrite" in ended.err or "changed" in ended.err


def test_a_split_seed_is_the_seed_unless_given(place: Path, cli: Cli) -> None:
    from finetune.recipe.load import load_recipe

    path = place / "recipe.yaml"
    assert load_recipe(path, ["seed=7"]).data.split_seed == 7
    assert load_recipe(path, ["seed=7", "data.split_seed=3"]).data.split_seed == 3
