"""At both bounds of every number, a step trains or is refused with one clear message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from recipe_numbers import Number, numbers

BASE: dict[str, Any] = {
    "data.workers": 0,
    "data.image_size": 16,
    "data.resize": 16,
    "model.weights": "none",
    "train.batch_size": 2,
    "train.max_steps": 1,
    "train.threads": 1,
    "train.precision": "fp32",
    "cache.where": "off",
    "cache.decoded": "off",
}
# Keys whose bounds exceed these images or this network.
REFUSED = {
    "data.fold.number",
    "data.fold.of",
    "model.head.at",
    "model.head.reuse.any",
    "model.weights.min_share",
    "train.class_weights.any",
    "train.phases.0.freeze",
}
# Two processes test as much as 256.
ELSEWHERE = {"data.workers"}
# One step would take half a minute.
LARGE = ("data.image_size", 4096)
CASES = [
    pytest.param(each, value, marks=[pytest.mark.slow] if (each.key, value) == LARGE else [])
    for each in numbers()
    if each.key not in ELSEWHERE
    for value in each.ends
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without splits, so val and test are held out."""
    return tiny.draw_images(tmp_path_factory.mktemp("images"), {"all": (6, 6)}) / "all"


@pytest.mark.parametrize(("each", "value"), CASES, ids=lambda each: getattr(each, "key", repr(each)))
def test_a_step_at_each_bound_trains_or_is_refused(
    each: Number,
    value: float,
    images: Path,
    chdir_tmp: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny.stand_in(monkeypatch)
    recipe = {"data": {"source": str(images)}, "model": {"backbone": tiny.STANDS_FOR}}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    settings = {**BASE, **each.recipe(value)}
    if each.key.startswith("model.weights."):
        del settings["model.weights"]
    if each.key == "data.image_size":
        settings["data.resize"] = max(8, min(8192, int(value)))
    words = [f"{key}={json.dumps(setting)}" for key, setting in settings.items()]
    ended = cli("train", "recipe.yaml", "--device", "cpu", *(w for each in words for w in ("--set", each)))
    assert "Traceback" not in ended.err
    assert ended.code in ((0, 2) if each.key in REFUSED else (0,)), ended.err
