"""``finetune eval``: the splits of the run, other data, the CSV file, ``--min-top1``."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.evaluation.intervals import RESAMPLED
from finetune.image.decode import open_rgb
from finetune.training.compute import precision
from finetune.training.trained import Trained

Cli = Callable[..., Any]


def by_hand(trained: Trained, folder: Path) -> np.ndarray:
    """Compute the confusion matrix of a folder of class folders, one image at a time."""
    confusion = np.zeros((2, 2), dtype=int)
    for target, name in enumerate(trained.card.classes):
        for path in sorted((folder / name).iterdir()):
            image = torch.from_numpy(trained.card.preprocessing(open_rgb(path)))[None]
            with torch.inference_mode():
                confusion[target, int(trained.module(image).argmax())] += 1
    return confusion


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_json(cli: Cli, run: Path, trained: Trained, shapes: Path, split: str) -> None:
    ended = cli("eval", run, "--json", "--split", split)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    expected = by_hand(trained, shapes / split)
    assert found["confusion"] == expected.tolist()
    assert found["n"] == expected.sum()
    assert found["top1"] == pytest.approx(expected.trace() / expected.sum())
    assert found["top1_low"] < found["top1"] < found["top1_high"]
    assert (found["split"], found["checkpoint"], found["run"]) == (split, "best", str(run))
    assert found["classes"] == ["disc", "square"]
    assert found["skipped"] == []
    assert found["precision"] == "fp32"
    ends = {key for key in found if key.endswith(("_low", "_high"))}
    resampled = {f"{name}_{end}" for name in RESAMPLED for end in ("low", "high")}
    assert ends - resampled == {"top1_low", "top1_high"}  # a statistic without a width has no interval
    assert set(found) - resampled == {
        "top1", "top1_low", "top1_high", "n", "split", "loss", "balanced_accuracy", "macro_f1", "ece",
        "classes", "per_class", "confusion", "calibration", "checkpoint", "run", "skipped", "precision",
            "images",
    }  # fmt: skip


def test_the_screen(cli: Cli, run: Path) -> None:
    ended = cli("eval", run)
    assert ended.code == 0
    assert "split              test" in ended.out
    assert "(n = 12)" in ended.out
    assert "calibration error" in ended.out


def grouped(run: Path, place: Path, pattern: str) -> Path:
    """The run as if its recipe had this ``data.group_by``."""
    shutil.copytree(run, place)
    recipe = place / "resolved.yaml"
    recipe.write_text(recipe.read_text().replace("group_by: null", f"group_by: {pattern}"))
    return place


def test_groups_are_found_again(cli: Cli, run: Path, tmp_path: Path, shapes: Path) -> None:
    plain = json.loads(cli("eval", run, "--json").out)
    by_groups = grouped(run, tmp_path / "run", "'_.(.)'")  # disc_03.png and square_03.png are one group
    found = json.loads(cli("eval", by_groups, "--json").out)
    assert found["groups"] == len({path.stem[-1] for path in (shapes / "test").rglob("*.png")}) == 6
    assert (found["top1_low_images"], found["top1_high_images"]) == (plain["top1_low"], plain["top1_high"])
    assert found["top1_low"] != plain["top1_low"]
    assert "groups" not in plain
    ended = cli("eval", by_groups)
    assert "(n = 12 in 6 groups)" in ended.out
    assert "counted by images, it would be [" in ended.out


def test_unknown_groups_are_a_warning(cli: Cli, run: Path, tmp_path: Path) -> None:
    ended = cli("eval", grouped(run, tmp_path / "run", "'^(patient[0-9]+)'"))
    assert ended.code == 0, ended.err
    assert "(n = 12)" in ended.out
    assert "the intervals count images" in ended.err


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_the_precision_is_named(wanted: str, cli: Cli, run: Path) -> None:
    ended = cli("eval", run, "--precision", wanted)
    assert ended.code == 0, ended.err
    assert f"computed in        {wanted}" in ended.out
    ended = cli("eval", run, "--precision", wanted, "--json")
    assert json.loads(ended.out)["precision"] == wanted
    assert cli("eval", run, "--precision", "fp16").code == 2


def test_bf16_in_software_gives_a_warning(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_units", lambda: ())
    assert "in software" in cli("eval", run, "--device", "cpu", "--precision", "bf16").err
    assert "in software" not in cli("eval", run, "--device", "cpu").err
    monkeypatch.setattr(precision, "cpu_units", lambda: ("AMX",))
    assert "in software" not in cli("eval", run, "--device", "cpu", "--precision", "bf16").err


def test_the_last_checkpoint(cli: Cli, run: Path) -> None:
    best, last = (
        json.loads(cli("eval", run, "--json", "--checkpoint", name).out) for name in ("best", "last")
    )
    # Its head has the opposite sign.
    assert last["top1"] == pytest.approx(1 - best["top1"])


def test_predictions_file(cli: Cli, run: Path, tmp_path: Path, shapes: Path) -> None:
    target = tmp_path / "out" / "predictions.csv"
    ended = cli("eval", run, "--json", "--predictions", target)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert list(rows[0]) == [
        "path",
        "label",
        "predicted",
        "correct",
        "probability",
        "prob_disc",
        "prob_square",
    ]
    assert sorted(row["path"] for row in rows) == sorted(str(p) for p in (shapes / "test").rglob("*.png"))
    assert np.mean([int(row["correct"]) for row in rows]) == pytest.approx(json.loads(ended.out)["top1"])
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(("gate", "code"), [("0", 0), ("1.0", 1)])
def test_the_gate(cli: Cli, run: Path, gate: str, code: int) -> None:
    ended = cli("eval", run, "--json", "--min-top1", gate)
    assert ended.code == code
    assert "top1" in json.loads(ended.out)  # the numbers come either way
    assert ("below --min-top1" in ended.err) == (code == 1)


@pytest.mark.parametrize(
    ("gate", "message"), [("93", "For 93 % write 0.93"), ("-1", "from 0 to 1"), ("nan", "from 0")]
)
def test_a_gate_that_is_not_a_fraction_is_exit_2(cli: Cli, run: Path, gate: str, message: str) -> None:
    ended = cli("eval", run, "--min-top1", gate)
    assert ended.code == 2
    assert message in ended.err


@pytest.fixture
def others(tmp_path: Path, shapes: Path) -> Path:
    """A folder of classes without splits, with one more class before those of the model."""
    root = tmp_path / "others"
    for name in ("disc", "square"):
        shutil.copytree(shapes / "val" / name, root / name)
    return root


def test_other_data_is_used_whole(cli: Cli, run: Path, trained: Trained, others: Path) -> None:
    ended = cli("eval", run, "--json", "--data", others)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["split"] == "all"
    assert found["confusion"] == by_hand(trained, others).tolist()


def test_labels_in_another_order_are_matched_by_name(
    cli: Cli, run: Path, trained: Trained, others: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"{path},{path.parent.name}" for path in sorted(others.rglob("*.png"), reverse=True)]
    table.write_text("\n".join(["path,label", *lines]))
    found = json.loads(cli("eval", run, "--json", "--data", table).out)
    assert found["confusion"] == by_hand(trained, others).tolist()


def test_unknown_classes_are_exit_2_with_both_sides(cli: Cli, run: Path, others: Path) -> None:
    (others / "square").rename(others / "Square")
    ended = cli("eval", run, "--data", others)
    assert ended.code == 2
    assert "'Square'" in ended.err
    assert "'disc', 'square'" in ended.err


def test_an_unreadable_image_is_an_error_by_default(cli: Cli, run: Path, others: Path) -> None:
    bad = others / "disc" / "zzz.png"
    bad.write_bytes(b"")
    ended = cli("eval", run, "--data", others)
    assert ended.code == 2
    assert "zzz.png: empty file" in ended.err


def test_a_run_of_an_earlier_version_without_recorded_splits_is_refused(
    cli: Cli, run: Path, shapes: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    resolved = copy / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace(str(shapes), str(shapes / "train")))
    ended = cli("eval", copy, "--json")
    assert ended.code == 2
    assert "did not record its splits" in ended.err
    assert "--data" in ended.err
    assert cli("eval", copy, "--json", "--data", shapes / "test").code == 0


def test_a_run_without_a_test_split_is_evaluated_on_val_with_a_warning(
    cli: Cli, run: Path, shapes: Path, tmp_path: Path
) -> None:
    data, copy = tmp_path / "data", tmp_path / "run"
    shutil.copytree(shapes / "train", data / "train")
    shutil.copytree(shapes / "val", data / "val")
    shutil.copytree(run, copy)
    resolved = copy / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace(str(shapes), str(data)))
    ended = cli("eval", copy, "--json")
    assert json.loads(ended.out)["split"] == "val"
    assert "no test split; these numbers are on val" in ended.err
    ended = cli("eval", copy, "--split", "test")
    assert ended.code == 2
    assert "there is no 'test' split" in ended.err


def test_a_path_that_is_not_a_run_is_exit_2(cli: Cli, chdir_tmp: Path) -> None:
    Image.new("RGB", (4, 4)).save("x.png")
    for name in ("gone", "x.png"):
        ended = cli("eval", name)
        assert ended.code == 2
        assert "no such folder" in ended.err


def test_sets_and_abstaining_are_measured(cli: Cli, run: Path) -> None:
    ended = cli("eval", run, "--coverage", "0.6", "--sets", "adaptive", "--abstain", "0.6", "--json")
    found = json.loads(ended.out)
    sets, abstain = found["sets"], found["abstain"]
    assert (sets["asked"], sets["sets"], abstain["asked"]) == (0.6, "adaptive", 0.6)
    assert sets["coverage_low"] <= sets["coverage"] <= sets["coverage_high"]
    assert abstain["curve"][0]["accuracy"] == found["top1"]
    assert found["calibration"]["temperature"] == 2.5
    screen = cli("eval", run, "--coverage", "0.6").out
    assert "for a coverage of 60 %" in screen
    assert "error without it" in screen
    assert cli("eval", run, "--sets", "adaptive").code == 2
    assert cli("eval", run, "--checkpoint", "last", "--coverage", "0.6").code == 2
