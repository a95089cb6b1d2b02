"""``finetune cv``: every image is evaluated once, by a network not trained on it; resume after a stop."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
data: {{source: {source}, image_size: 32, resize: 32, workers: 0{more}}}
model: {{backbone: resnet18, weights: none}}
train: {{batch_size: 16, phases: [{{freeze: none, epochs: 1}}]}}
"""


@pytest.fixture
def write(chdir_tmp: Path, shapes: Path) -> Any:
    def recipe(more: str = "", source: Path | None = None) -> Path:
        path = chdir_tmp / "recipe.yaml"
        path.write_text(RECIPE.format(source=source or shapes, more=more))
        return path

    return recipe


def test_every_image_is_held_out_once(write: Any, chdir_tmp: Path, cli: Any, shapes: Path) -> None:
    ended = cli("cv", write(), "--folds", "3", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "standard deviation" in ended.out
    assert "true \\ predicted" in ended.out
    place = chdir_tmp / "runs/recipe-cv"
    names = ["fold-0", "fold-1", "fold-2", "out_of_fold.csv"]
    assert sorted(path.name for path in place.iterdir()) == names
    with (place / "out_of_fold.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = sorted(str(path) for split in ("train", "val") for path in (shapes / split).rglob("*.png"))
    assert sorted(row["path"] for row in rows) == expected  # and none of the test split's
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    trained_on = {
        fold: set(json.loads((place / f"fold-{fold}/environment.json").read_text())["images"].items())
        for fold in range(3)
    }
    assert all(dict(counts)["test"] in (14, 15, 16) for counts in trained_on.values())
    # `eval` on a fold's run takes the held-out fold as test.
    measured = json.loads(cli("eval", place / "fold-1", "--json", "--device", "cpu").out)
    own = [row for row in rows if row["fold"] == "1"]
    assert measured["n"] == len(own)
    assert measured["top1"] == pytest.approx(sum(int(row["correct"]) for row in own) / len(own))
    # Taken up: what is finished stays, what is missing is done, with the same outcome.
    first = json.loads(cli("cv", write(), "--folds", "3", "--resume", "--json", "--device", "cpu").out)
    shutil.rmtree(place / "fold-2")
    (place / "out_of_fold.csv").unlink()
    ended = cli("cv", write(), "--folds", "3", "--resume", "--json", "--device", "cpu")
    assert ended.err.count("nothing was done") == 2
    answer = json.loads(ended.out)
    assert answer == first
    assert answer["n"] == len(rows)
    assert answer["top1_spread"]["n"] == 3
    assert sum(sum(line) for line in answer["confusion"]) == len(rows)
    # The doctor finds doubtful labels in these predictions.
    words = ("doctor", place, "--labels", "--csv", chdir_tmp / "doubts.csv", "--json", "--device", "cpu")
    ended = cli(*words)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    with (place / "out_of_fold.csv").open() as file:
        by_path = {row["path"]: row for row in csv.DictReader(file)}
    with (chdir_tmp / "doubts.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [each["files"] for each in found["findings"]] == [[str(shapes / row["path"])] for row in table]
    for each, row in zip(found["findings"], table, strict=True):
        out_of_fold = by_path[each["files"][0]]
        assert (each["label"], row["new_label"]) == (out_of_fold["label"], "")
        probability = float(out_of_fold[f"prob_{each['label']}"])
        assert each["probability"] == pytest.approx(probability, abs=1e-5)
    # Some images of val are copies of images of train, which another network has seen.
    left = sum(found["classes"]["held out"].values())
    assert any(f"{44 - left} images have a copy in another fold" in note for note in found["notes"]) == (
        left < 44
    )
    assert "finetune report" in cli("doctor", place / "fold-0").err
    assert cli("doctor", place).code == cli(*words, "--overwrite", "--set", "data.workers=0").code == 2
    # And refused otherwise.
    ended = cli("cv", write(), "--folds", "3", "--device", "cpu")
    assert ended.code == 2
    assert "--resume" in ended.err


def test_groups_stay_in_one_fold(write: Any, chdir_tmp: Path, cli: Any, shapes: Path) -> None:
    recipe = write(", group_by: '_(.)'", shapes / "train")
    ended = cli("cv", recipe, "--folds", "2", "--device", "cpu", "--json")
    assert ended.code == 2  # disc_00 to disc_15: two groups, of which a fold and a val cannot be made
    assert "group" in ended.err
    ended = cli(
        "cv", write(", group_by: '_.(.)'", shapes / "train"), "--folds", "2", "--device", "cpu", "--json"
    )
    assert ended.code == 0, ended.err
    with (chdir_tmp / "runs/recipe-cv/out_of_fold.csv").open() as file:
        rows = list(csv.DictReader(file))
    groups = [{row["path"][-5] for row in rows if row["fold"] == fold} for fold in "01"]
    assert len(rows) == 32
    assert not groups[0] & groups[1]


def test_wrong_input_is_refused(write: Any, cli: Any, chdir_tmp: Path) -> None:
    assert cli("cv", write(), "--folds", "1").code == 2
    assert cli("cv", write(), "--resume", "--overwrite").code == 2
    ended = cli("cv", write(", fold: {number: 0, of: 3}"))
    assert ended.code == 2
    assert "data.fold" in ended.err
    ended = cli("cv", write(), "--folds", "400", "--device", "cpu")
    assert ended.code == 2
    assert "too many" in ended.err
    assert not list((chdir_tmp / "runs").rglob("fold-*"))
