"""Features of frozen layers, cached or computed: bit-identical, and never those of something else."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune.data.cache import contents
from finetune.errors import UserError
from finetune.features.cut import CutError
from finetune.recipe.load import parse_recipe
from finetune.training.caching import feature_plan, prefix
from finetune.training.fit import fit
from finetune.training.progress import Silent
from finetune.training.run.directory import RunDir

BASE = """\
seed: 5
data: {source: SOURCE, image_size: 32, resize: 36, workers: 0}
model: {backbone: shufflenet_v2_x0_5, weights: none, head: {dropout: 0.2}}
"""


class Told(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.facts: list[str] = []
        self.computed = 0

    def started(self, facts: Any) -> None:
        self.facts = [text for name, text in facts if name == "features"]

    def features(self, done: int, images: int) -> None:
        self.computed += images if done == images else 0


def run(folder: Path, source: Path, train: str, *overrides: str) -> Told:
    recipe = parse_recipe(BASE.replace("SOURCE", str(source)) + train, "r.yaml", overrides)
    told = Told()
    with RunDir.open(folder, overwrite=True) as run_dir:
        fit(recipe, run_dir, device="cpu", progress=told)
    return told


def bits(folder: Path) -> dict[str, str]:
    files = [folder / "metrics.jsonl", folder / "checkpoints" / "last" / "state.json"]
    for checkpoint in ("best", "last"):
        files.extend(folder.glob(f"checkpoints/{checkpoint}/*.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


RECIPES = {
    "head only": "train: {batch_size: 6, optimizer: sgd, phases: [{freeze: backbone, epochs: 3, lr: 1e-2}]}",
    "two phases, two views, EMA": """\
train:
  batch_size: 6
  ema: 0.9
  accumulate: 2
  augment: {crop: random_resized, flip: true, views: 2}
  phases: [{freeze: backbone, epochs: 3, lr: 1e-2}, {freeze: 9, epochs: 3, lr: 1e-3}]
""",
    "thawed first, balanced, bf16": """\
train:
  batch_size: 8
  ema: 0.9
  precision: bf16
  sampler: balanced
  phases: [{freeze: 4, epochs: 1, lr: 1e-2}, {freeze: 12, epochs: 2, lr: 1e-2}]
""",
}


@pytest.mark.parametrize("name", RECIPES)
def test_on_and_off_give_the_same_bits(name: str, shapes: Path, tmp_path: Path) -> None:
    told = {
        where: run(tmp_path / where, shapes, RECIPES[name], f"cache.where={where}")
        for where in ("off", "memory", "disk")
    }
    again = run(tmp_path / "again", shapes, RECIPES[name], "cache.where=disk")
    assert told["off"].computed == 0
    assert told["memory"].computed == told["disk"].computed > 0
    assert again.computed == 0
    for where in ("memory", "disk", "again"):
        assert bits(tmp_path / where) == bits(tmp_path / "off"), where
    assert len(bits(tmp_path / "off")) >= 4


def test_balanced_draws_of_unequal_classes_are_all_kept(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    for rare in sorted((source / "train" / "disc").iterdir())[3:]:
        rare.unlink()
    text = "train: {batch_size: 4, sampler: balanced, phases: [{freeze: backbone, epochs: 4, lr: 1e-2}]}"
    for where in ("off", "memory"):
        run(tmp_path / where, source, text, f"cache.where={where}")
    assert bits(tmp_path / "off") == bits(tmp_path / "memory")


def test_what_is_decided_is_told_and_written_down(shapes: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "r", shapes, RECIPES["head only"])
    assert told.facts[0].startswith("18 frozen layers, of train and val cached on disk (4.1 KB per image")
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert environment["features"]["0"] in told.facts[0]
    assert told.computed == 32  # val's images are among train's


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("augment: {flip: true}, phases: [{freeze: backbone, epochs: 2}]", "a new view each epoch"),
        ("augment: {mixup_alpha: 0.2}, phases: [{freeze: backbone, epochs: 2}]", "mixup and cutmix"),
        (
            "augment: {flip: true, views: 2}, sampler: balanced, phases: [{freeze: 4, epochs: 2}]",
            "balanced draws",
        ),
        ("phases: [{freeze: backbone, epochs: 1}]", "used once only"),
    ],
)
def test_what_cannot_pay_is_computed_anew(train: str, says: str, shapes: Path, tmp_path: Path) -> None:
    text = f"train: {{batch_size: 16, {train}}}"
    on = run(tmp_path / "on", shapes, text)
    assert says in on.facts[0]
    assert "computed each time" in on.facts[0]
    run(tmp_path / "off", shapes, text, "cache.where=off")
    assert bits(tmp_path / "on") == bits(tmp_path / "off")


def test_a_limit_is_kept(shapes: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "r", shapes, RECIPES["head only"], "cache.limit=60KB")
    assert "over cache.limit, 60.0 KB" in told.facts[0]
    assert told.computed == 12  # val alone has room


def test_nothing_is_reused_after_a_change(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    text = RECIPES["head only"]
    assert run(tmp_path / "r", source, text).computed == 32
    assert run(tmp_path / "r", source, text).computed == 0
    # Other pixels under the same name, size and times of change.
    changed = source / "train" / "disc" / "disc_00.png"
    stat = changed.stat()
    with Image.open(changed) as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(changed)
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(tmp_path / "r", source, text).computed == 1
    # Other weights, another transform: everything, with val's first image, which train has no longer.
    assert run(tmp_path / "r", source, text, "seed=6").computed == 33
    assert run(tmp_path / "r", source, text, "data.interpolation=nearest").computed == 33
    assert run(tmp_path / "r", source, text).computed == 0
    assert len(contents.list_cached()) == 3


def test_a_harmed_file_changes_nothing(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "a", shapes, RECIPES["head only"])
    (block, *_) = sorted(contents.features_folder().glob("*/*.safetensors"))
    content = bytearray(block.read_bytes())
    content[-1] ^= 255
    block.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        told = run(tmp_path / "b", shapes, RECIPES["head only"])
    assert told.computed in (32, 12)
    assert "computed again" in caplog.text
    assert bits(tmp_path / "a") == bits(tmp_path / "b")


def test_images_that_cannot_be_read_are_left_out_the_same_way(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    (source / "train" / "disc" / "disc_03.png").write_bytes(b"no image")
    (source / "val" / "square" / "square_02.png").write_bytes(b"")
    text = RECIPES["two phases, two views, EMA"]
    for where in ("off", "memory"):
        told = run(tmp_path / where, source, text, "data.on_bad_image=skip", f"cache.where={where}")
    assert told.computed > 0
    assert bits(tmp_path / "off") == bits(tmp_path / "memory")
    lines = [json.loads(line) for line in (tmp_path / "off" / "metrics.jsonl").read_text().splitlines()]
    assert (lines[0]["train_skipped"], lines[0]["val_skipped"]) == (1, 1)


def test_networks_that_cannot_be_cut_run_whole(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CutError("two tensors cross")

    text = "train: {batch_size: 16, phases: [{freeze: backbone, epochs: 1}]}"
    monkeypatch.setattr(feature_plan, "cost", refuse)
    told = run(tmp_path / "early", shapes, text)
    assert "two tensors cross" in told.facts[0]
    monkeypatch.undo()
    monkeypatch.setattr(prefix, "cut_network", refuse)
    run(tmp_path / "late", shapes, text)
    assert bits(tmp_path / "early") == bits(tmp_path / "late")


SOLVED = """\
train:
  batch_size: 6
  phases: [{freeze: backbone, optimizer: lbfgs}, {freeze: 9, epochs: 1, lr: 1e-3}]
"""


def test_a_solved_head_sees_plain_images_where_looks_have_no_end(shapes: Path, tmp_path: Path) -> None:
    endless = ["train.augment.flip=true", "train.augment.mixup_alpha=0.2", "train.label_smoothing=0.1"]
    run(tmp_path / "plain", shapes, SOLVED, "model.head.dropout=0")
    run(tmp_path / "endless", shapes, SOLVED, "model.head.dropout=0.2", *endless)
    first, second = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("plain", "endless")
    )
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-6)
    run(tmp_path / "views", shapes, SOLVED, "model.head.dropout=0", "train.augment={flip: true, views: 2}")
    third = json.loads((tmp_path / "views" / "metrics.jsonl").read_text().splitlines()[0])
    assert third["train_loss"] != pytest.approx(second["train_loss"], rel=1e-6)


def test_a_solved_head_starts_the_next_phase(shapes: Path, tmp_path: Path) -> None:
    for where in ("off", "disk"):
        run(tmp_path / where, shapes, SOLVED, "model.head.dropout=0", "train.ema=0.9", f"cache.where={where}")
    assert bits(tmp_path / "off") == bits(tmp_path / "disk")
    lines = [json.loads(line) for line in (tmp_path / "off" / "metrics.jsonl").read_text().splitlines()]
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
def test_what_cannot_be_solved_is_refused(
    overrides: list[str], says: str, shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path / "r", shapes, SOLVED, *overrides)
