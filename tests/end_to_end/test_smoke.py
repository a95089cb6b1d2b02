"""`train --smoke` accepts every recipe that `recipe validate` accepts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from finetune.recipe.schema import Recipe

FAST: dict[str, Any] = {
    "data": {"source": "nowhere/at/all", "image_size": 32},
    "model": {"backbone": "squeezenet1_1"},
}
# Recipes that together have every key of the schema. Add a new key to one that it does not conflict with.
EXAMPLES: dict[str, dict[str, Any]] = {
    "groups by a column": {
        "data": {
            "source": "table.csv",
            "split_column": "usage",
            "group_by": "patient",
            "val_fraction": 0.3,
            "test_fraction": 0.3,
        },
        "train": {"batch_size": 1},
    },
    "groups by a pattern, in a fold": {
        "seed": 7,
        "data": {
            "split_seed": 3,
            "layout": "classes",
            "group_by": "^(scene[0-9]+)_",
            "fold": {"number": 19, "of": 20},
            "on_bad_image": "skip",
        },
        "train": {"optimizer": "sgd", "momentum": 0.8, "schedule": "one_cycle"},
    },
    "groups and a solved head": {
        "data": {"group_by": "/(p[0-9]+)/"},
        "model": {"backbone": "shufflenet_v2_x0_5"},
        "train": {
            "class_weights": "balanced",
            "select": "loss",
            "refit": True,
            "calibrate": "none",
            "novelty": "none",
            "phases": [
                {"freeze": "backbone", "optimizer": "lbfgs", "weight_decay": "auto"},
                {"epochs": 30, "freeze": 8, "layer_decay": 0.7, "head_lr_mult": 3.0, "lr": 1e-4},
            ],
        },
    },
    "geometry": {
        "data": {
            "resize": 50,
            "resize_mode": "squash",
            "interpolation": "lanczos",
            "decode": "full",
            "workers": 4,
        },
        "train": {"batch_size": "auto", "accumulate": 3, "max_steps": 2, "checkpoint_every_steps": 1},
    },
    "grey": {
        "data": {"resize_mode": "pad"},
        "model": {"in_channels": 1, "batchnorm": "frozen", "backbone": "shufflenet_v2_x0_5"},
        "train": {"batch_size": 1, "deterministic": True, "threads": 1},
    },
    "channels": {"model": {"in_channels": 6}, "train": {"augment": {"color_jitter": {"hue": 0.1}}}},
    "weights and classes by name": {
        "model": {
            "backbone": "shufflenet_v2_x0_5",
            "weights": {"path": "gone.pth", "rename": {"a.": "b."}, "min_share": 0.2},
            "head": {"reuse": {"owl": "great grey owl", "bird": 134}, "init": "zero", "dropout": 0.3},
        }
    },
    "reuse": {"model": {"head": {"reuse": "auto"}, "weights": "IMAGENET1K_V1"}},
    "uneven classes, by their frequencies": {
        "model": {"backbone": "shufflenet_v2_x0_5"},
        "train": {
            "logit_adjust": 1.0,
            "class_weights": {"owl": 2.5, "none": 0.5},
            "select": "balanced_accuracy",
            "phases": [
                {"freeze": "backbone", "optimizer": "lbfgs"},
                {"epochs": 2, "freeze": 8},
            ],
        },
    },
    "uneven classes, by their images": {
        "train": {
            "loss": "focal",
            "focal_gamma": 1.5,
            "class_weights": "balanced",
            "label_smoothing": 0.1,
            "augment": {"cutmix_alpha": 0.5},
        }
    },
    "another head": {
        "model": {
            "backbone": "shufflenet_v2_x0_5",
            "batchnorm_momentum": "keep",
            "batchnorm_recalibrate": 512,
            "head": {"type": "cosine", "scale": 5.0, "learn_scale": False, "at": 9, "hidden": 8},
        },
        "train": {"l2_sp": {"alpha": 0.2, "beta": 0.1}},
    },
    "every augmentation": {
        "train": {
            "augment": {
                "crop": "random_resized",
                "scale": [0.5, 1.0],
                "ratio": [1.0, 1.0],
                "flip": True,
                "vertical_flip": True,
                "rotation": 20.0,
                "translate": 0.1,
                "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
                "randaugment": {"num_ops": 1, "magnitude": 5},
                "random_erasing": 0.5,
                "mixup_alpha": 0.2,
                "cutmix_alpha": 0.5,
            },
            "label_smoothing": 0.1,
            "grad_clip_norm": 1.0,
            "ema": 0.9,
            "sampler": "balanced",
        }
    },
    "cached views": {
        "train": {
            "augment": {"trivial_augment": True, "views": 40},
            "phases": [{"freeze": "backbone", "epochs": 50, "warmup_epochs": 5.0, "schedule": "cosine"}],
        },
        "cache": {"where": "memory", "limit": "1GB", "decoded": "memory"},
    },
    "many phases": {
        "train": {
            "weight_decay": 0.1,
            "decay_bias_and_norm": True,
            "schedule": "step",
            "step_epochs": 3,
            "step_gamma": 0.5,
            "warmup_epochs": 1.0,
            "early_stopping": 1,
            "precision": "fp32",
            "memory_format": "contiguous",
            "compile": False,
            "phases": [
                {"freeze": "backbone", "epochs": 2, "optimizer": "sgd", "weight_decay": 0.0},
                {"freeze": "none", "epochs": 3},
            ],
        }
    },
}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], dict) and isinstance(other[name], dict):
            both[name] = merged(one[name], other[name])
    return both


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key below a section, without the numbers of lists."""
    for name, field in model.model_fields.items():
        sections = [each for each in sections_in(field.annotation) if issubclass(each, BaseModel)]
        for section in sections:
            yield from keys(section, f"{path}{name}.")
        if not sections:
            yield path + name


def sections_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        yield annotation
    for part in getattr(annotation, "__args__", None) or ():
        yield from sections_in(part)


def written(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, below in value.items():
            yield path + name
            yield from written(below, f"{path}{name}.")
    elif isinstance(value, list):
        for each in value:
            yield from written(each, path)


def test_every_key_of_the_schema_has_an_example() -> None:
    known = set(keys(Recipe))
    assert {"data.fold.of", "train.phases.layer_decay", "model.weights.rename", "seed"} <= known
    there = {key for example in EXAMPLES.values() for key in written(merged(FAST, example))}
    assert sorted(known - there) == [], "add these keys to an example"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_valid_recipe_passes_smoke(name: str, chdir_tmp: Path, cli: Callable[..., Any]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(merged(FAST, EXAMPLES[name])))
    assert cli("recipe", "validate", "recipe.yaml").code == 0
    ended = cli("train", "recipe.yaml", "--smoke", "--device", "cpu")
    assert ended.code == 0, ended.err
    judged = cli("eval", "runs/recipe-smoke", "--json", "--device", "cpu")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["n"] >= 3
