"""Features of frozen layers, cached or computed: bit-identical, and never those of something else."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from finetune.data.cache import contents
from finetune.features.cut import CutError
from finetune.training.caching import feature_plan, prefix
from small_runs import bits, metrics, run

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


# The other recipes have a phase like it.
SLOW = ("head only",)


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in RECIPES]
)
def test_runs_with_and_without_a_cache_are_bit_identical(name: str, shapes: Path, tmp_path: Path) -> None:
    reports = {
        where: run(tmp_path / where, shapes, RECIPES[name], f"cache.where={where}")
        for where in ("off", "memory", "disk")
    }
    again = run(tmp_path / "again", shapes, RECIPES[name], "cache.where=disk")
    assert reports["off"].computed == 0
    assert reports["memory"].computed == reports["disk"].computed > 0
    assert again.computed == 0
    for where in ("memory", "disk", "again"):
        assert bits(tmp_path / where) == bits(tmp_path / "off"), where
    assert len(bits(tmp_path / "off")) >= 4


def test_balanced_draws_of_unequal_classes_are_all_cached(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    for rare in sorted((source / "train" / "disc").iterdir())[3:]:
        rare.unlink()
    text = "train: {batch_size: 4, sampler: balanced, phases: [{freeze: backbone, epochs: 4, lr: 1e-2}]}"
    for where in ("off", "memory"):
        run(tmp_path / where, source, text, f"cache.where={where}")
    assert bits(tmp_path / "off") == bits(tmp_path / "memory")


def test_the_plan_is_reported_and_recorded(shapes: Path, tmp_path: Path) -> None:
    reports = run(tmp_path / "r", shapes, RECIPES["head only"])
    assert reports.features_facts[0].startswith(
        "18 frozen layers, of train and val cached on disk (4.1 KB per image"
    )
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert environment["features"]["0"] in reports.features_facts[0]
    assert reports.computed == 32  # val's images are among train's


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("augment: {flip: true}, phases: [{freeze: backbone, epochs: 2}]", "a new view each epoch"),
        ("augment: {mixup_alpha: 0.2}, phases: [{freeze: backbone, epochs: 2}]", "mixup and cutmix"),
        (
            "augment: {flip: true, views: 2}, sampler: balanced, phases: [{freeze: 4, epochs: 2}]",
            "balanced draws",
        ),
        ("phases: [{freeze: backbone, epochs: 1}]", "each view is used only once"),
    ],
)
def test_features_that_cannot_be_reused_are_not_cached(
    train: str, says: str, shapes: Path, tmp_path: Path
) -> None:
    text = f"train: {{batch_size: 16, {train}}}"
    on = run(tmp_path / "on", shapes, text)
    assert says in on.features_facts[0]
    assert "computed each time" in on.features_facts[0]
    run(tmp_path / "off", shapes, text, "cache.where=off")
    assert bits(tmp_path / "on") == bits(tmp_path / "off")


def test_the_cache_stays_within_its_limit(shapes: Path, tmp_path: Path) -> None:
    reports = run(tmp_path / "r", shapes, RECIPES["head only"], "cache.limit=60KB")
    assert "over cache.limit, 60.0 KB" in reports.features_facts[0]
    assert reports.computed == 12  # val alone has room


def test_changed_images_weights_and_transforms_are_computed_again(shapes: Path, tmp_path: Path) -> None:
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


def test_features_of_a_damaged_file_are_computed_again(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "a", shapes, RECIPES["head only"])
    (block, *_) = sorted(contents.features_folder().glob("*/*.safetensors"))
    content = bytearray(block.read_bytes())
    content[-1] ^= 255
    block.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        reports = run(tmp_path / "b", shapes, RECIPES["head only"])
    assert reports.computed in (32, 12)
    assert "computed again" in caplog.text
    assert bits(tmp_path / "a") == bits(tmp_path / "b")


def test_unreadable_images_are_left_out_with_and_without_a_cache(shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "images"
    shutil.copytree(shapes, source)
    (source / "train" / "disc" / "disc_03.png").write_bytes(b"no image")
    (source / "val" / "square" / "square_02.png").write_bytes(b"")
    text = RECIPES["two phases, two views, EMA"]
    for where in ("off", "memory"):
        reports = run(tmp_path / where, source, text, "data.on_bad_image=skip", f"cache.where={where}")
    assert reports.computed > 0
    assert bits(tmp_path / "off") == bits(tmp_path / "memory")
    lines = metrics(tmp_path / "off")
    assert (lines[0]["train_skipped"], lines[0]["val_skipped"]) == (1, 1)


def test_networks_that_cannot_be_cut_run_whole(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CutError("two tensors cross")

    text = "train: {batch_size: 16, phases: [{freeze: backbone, epochs: 1}]}"
    monkeypatch.setattr(feature_plan, "cost", refuse)
    reports = run(tmp_path / "early", shapes, text)
    assert "two tensors cross" in reports.features_facts[0]
    monkeypatch.undo()
    monkeypatch.setattr(prefix, "cut_network", refuse)
    run(tmp_path / "late", shapes, text)
    assert bits(tmp_path / "early") == bits(tmp_path / "late")
