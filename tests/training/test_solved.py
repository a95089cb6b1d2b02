"""Phases that solve their head: on which images, with which result, and which recipes allow it."""

import shutil
from pathlib import Path

import pytest

from finetune.errors import DataError, UserError
from small_runs import bits, metrics, run

SOLVED = """\
train:
  batch_size: 6
  phases: [{freeze: backbone, optimizer: lbfgs}, {freeze: 9, epochs: 1, lr: 1e-3}]
"""


def test_a_head_is_solved_on_plain_images_if_views_are_endless(shapes: Path, tmp_path: Path) -> None:
    endless = ["train.augment.flip=true", "train.augment.mixup_alpha=0.2", "train.label_smoothing=0.1"]
    run(tmp_path / "plain", shapes, SOLVED, "model.head.dropout=0")
    run(tmp_path / "endless", shapes, SOLVED, "model.head.dropout=0.2", *endless)
    first, second = (metrics(tmp_path / name)[0] for name in ("plain", "endless"))
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-6)
    run(tmp_path / "views", shapes, SOLVED, "model.head.dropout=0", "train.augment={flip: true, views: 2}")
    third = metrics(tmp_path / "views")[0]
    assert third["train_loss"] != pytest.approx(second["train_loss"], rel=1e-6)


def test_a_solved_head_starts_the_next_phase(shapes: Path, tmp_path: Path) -> None:
    for where in ("off", "disk"):
        run(tmp_path / where, shapes, SOLVED, "model.head.dropout=0", "train.ema=0.9", f"cache.where={where}")
    assert bits(tmp_path / "off") == bits(tmp_path / "disk")
    lines = metrics(tmp_path / "off")
    assert (lines[0]["epoch"], lines[0]["step"], lines[0]["lr"]) == (1, 1, {})
    assert lines[0]["train_loss"] < 0.6932  # that of a head of zeros is log 2
    assert lines[1]["step"] == 7


ALONE = "train.phases=[{freeze: backbone, optimizer: lbfgs}]"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([ALONE, "model.head.dropout=0.2"], "model.head.dropout: dropout is random"),
        ([ALONE, "train.augment.mixup_alpha=0.2"], "mixup_alpha is random"),
        ([ALONE, "train.label_smoothing=0.2"], "label_smoothing is not part"),
        (
            ["train.augment={flip: true, views: 2}", "train.sampler=balanced"],
            "more views of an image than augment.views",
        ),
        (["model.head.dropout=0", "train.phases.0.freeze=none"], "needs frozen features"),
        (["model.head.dropout=0", "train.phases.0.weight_decay=0"], "needs a weight_decay above 0"),
        (["model.head.dropout=0", "train.phases.0.epochs=3"], "in one step"),
        ([ALONE, "train.augment.flip=true"], "set augment.views"),
        (["model.head.dropout=0", "train.phases.0.freeze=17"], "hold more than that"),
        (["model.backbone=squeezenet1_1", "data.image_size=64", "model.head.dropout=0"], "more than that"),
    ],
)
def test_recipes_that_cannot_be_solved_are_refused(
    overrides: list[str], says: str, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path / "r", shapes, SOLVED, *overrides)


def test_a_class_without_a_readable_image_is_refused(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    for image in (source / "train" / "disc").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match="no training image of class 'disc' can be read"):
        run(tmp_path / "r", source, SOLVED, "model.head.dropout=0", "data.on_bad_image=skip")
