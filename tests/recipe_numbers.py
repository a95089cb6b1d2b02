"""All numbers of the recipe, from its JSON Schema, so that new keys are included."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, nextafter
from typing import Any

from finetune.recipe.load import json_schema

ROOT: dict[str, Any] = json.loads(json_schema())
# Further keys that a number's key needs, or conflicts with at their default.
BESIDE: dict[str, dict[str, Any]] = {
    "data.fold.number": {"data.fold.of": 1000},
    "data.fold.of": {"data.fold.number": 0},
    "model.weights.min_share": {"model.weights.path": "gone.pth"},
    "model.head.scale": {"model.head.type": "cosine"},
    "model.batchnorm_recalibrate": {"model.batchnorm": "train"},
    "train.momentum": {"train.optimizer": "sgd"},
    "train.warmup_epochs": {"train.phases.0.epochs": 1_000_000},
    "train.phases.0.warmup_epochs": {"train.phases.0.epochs": 1_000_000},
    "train.step_epochs": {"train.schedule": "step"},
    "train.step_gamma": {"train.schedule": "step"},
    "train.focal_gamma": {"train.loss": "focal"},
    **{f"train.augment.{key}": {"train.augment.crop": "random_resized"} for key in ("scale", "ratio")},
}


@dataclass(frozen=True)
class Number:
    """A number in a recipe: its dotted key, its kind and its range. ``pair``: a list of two."""

    key: str
    whole: bool
    low: float
    high: float
    zero: bool = False
    pair: bool = False

    @property
    def ends(self) -> list[float]:
        """The lowest and the highest value, and 0 if it is allowed besides."""
        return [self.low, self.high, *([0] if self.zero else [])]

    @property
    def beyond(self) -> list[float]:
        """The nearest values that are refused."""
        if self.whole:
            return [self.low - 1, self.high + 1]
        below = [nextafter(0, -1), *([nextafter(0, 1)] if self.zero else [])]
        return [*below, nextafter(self.low, -inf), nextafter(self.high, inf)]

    def recipe(self, value: float) -> dict[str, Any]:
        """The settings that give this key ``value``."""
        written: Any = int(value) if self.whole else float(value)
        return {**BESIDE.get(self.key, {}), self.key: [written, written] if self.pair else written}


def variants(schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return variants(ROOT["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in schema:
        return [each for one in schema["anyOf"] for each in variants(one)]
    return [schema]


def numbers(schema: dict[str, Any] = ROOT, key: str = "") -> Iterator[Number]:
    """Every number below ``schema``: one per list, and one per mapping with arbitrary keys."""
    found = variants(schema)
    zero = any("const" in each and each["const"] == 0 for each in found)
    for each in found:
        if each.get("type") in ("integer", "number"):
            yield number(each, key, zero)
        elif "prefixItems" in each:
            yield number(each["prefixItems"][0], key, False, pair=True)
        elif each.get("type") == "array":
            yield from numbers(each["items"], f"{key}.0")
        elif isinstance(each.get("additionalProperties"), dict):
            yield from numbers(each["additionalProperties"], f"{key}.any")
        for name, below in each.get("properties", {}).items():
            yield from numbers(below, f"{key}.{name}" if key else name)


def number(schema: dict[str, Any], key: str, zero: bool, pair: bool = False) -> Number:
    whole = schema["type"] == "integer"
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is None and above is not None:
        low = above + 1 if whole else nextafter(above, inf)
    if high is None and below is not None:
        high = below - 1 if whole else nextafter(below, -inf)
    assert low is not None, f"{key} has no least value"
    assert high is not None, f"{key} has no greatest value"
    return Number(key, whole, low, high, zero, pair)
