"""Names and defaults that several commands use are defined once."""

import inspect
from importlib.resources import files
from typing import Any

import pytest
import yaml

from finetune.api.advice import advice_base
from finetune.api.progress import Reporter
from finetune.cli import probe, rank
from finetune.data.holdout.splits import hold_out_splits
from finetune.recipe.catalog import DEFAULT_BACKBONE, DRAWN, KNOWN_SETS
from finetune.recipe.load import json_schema
from finetune.recipe.schema import DEFAULT_BATCH_SIZE, DataSection, TrainSection, default_of
from finetune.training.compute.batch_size import IMAGES_A_STEP


def starter() -> Any:
    return yaml.safe_load(files("finetune.recipe").joinpath("starter.yaml").read_text(encoding="utf-8"))


def test_every_command_has_the_same_default_backbone() -> None:
    assert starter()["model"]["backbone"] == DEFAULT_BACKBONE
    assert inspect.signature(probe.probe).parameters["backbone"].default == DEFAULT_BACKBONE
    assert rank.USUAL.split(",")[0] == DEFAULT_BACKBONE
    quiet = Reporter()
    assert advice_base("digits", None, [], quiet).model.backbone == DEFAULT_BACKBONE
    assert advice_base("digits", "resnet18", [], quiet).model.backbone == "resnet18"
    assert advice_base("digits", None, ["model.backbone=resnet34"], quiet).model.backbone == "resnet34"


def test_known_sets_are_the_same_in_every_text(cli: Any, chdir_tmp: Any) -> None:
    listed = ", ".join(KNOWN_SETS)
    assert DRAWN not in KNOWN_SETS
    assert f"a known set ({listed})" in json_schema()
    assert f"({listed})" in files("finetune.recipe").joinpath("starter.yaml").read_text(encoding="utf-8")
    said = cli("doctor", "nowhere").err
    assert f"a known set ({listed})" in said
    # Nor as what was meant.
    assert DRAWN not in cli("doctor", "drwan").err


def test_the_doctor_holds_out_the_same_splits_as_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.strategy.doctor import examine

    given: dict[str, Any] = {}

    def recorded(source: Any, **fractions: Any) -> Any:
        given.update(fractions)
        return hold_out_splits(source, **fractions)

    monkeypatch.setattr(examine, "hold_out_splits", recorded)
    examine.examine(DRAWN)
    plain = DataSection(source="digits")
    assert (given["val_fraction"], given["test_fraction"]) == (plain.val_fraction, plain.test_fraction)
    assert default_of(DataSection, "val_fraction") == plain.val_fraction


def test_the_starter_writes_the_defaults_that_it_names() -> None:
    assert starter()["train"]["batch_size"] == DEFAULT_BATCH_SIZE == IMAGES_A_STEP
    assert default_of(TrainSection, "batch_size") == DEFAULT_BATCH_SIZE
