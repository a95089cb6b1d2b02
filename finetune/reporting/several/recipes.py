"""What differs between recipes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.recipe.schema import Recipe

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class Difference:
    """A key whose value is not the same in all recipes, and its value in each; a dash where it has none."""

    key: str
    values: tuple[str, ...]


def differences(recipes: Sequence[Recipe], ignored: Sequence[str] = ()) -> list[Difference]:
    """The keys that differ, in the order of a recipe, except for those in ``ignored``."""
    flat = [dict(_flat(each.model_dump(mode="json"))) for each in recipes]
    keys = dict.fromkeys(key for each in flat for key in each)
    # Keys that only a later recipe has stand where they would be in it.
    ordered = sorted(keys, key=lambda key: min(list(each).index(key) for each in flat if key in each))
    found = []
    for key in ordered:
        values = tuple(each.get(key, ABSENT) for each in flat)
        if key not in ignored and len(set(values)) > 1:
            found.append(Difference(key, values))
    return found


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """All values with their keys, such as ``train.phases.0.lr``."""
    if isinstance(value, dict) and value:
        return [
            each for name, inner in value.items() for each in _flat(inner, f"{key}.{name}" if key else name)
        ]
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return [each for place, inner in enumerate(value) for each in _flat(inner, f"{key}.{place}")]
    if isinstance(value, list):
        return [(key, ", ".join(map(_in_words, value)) or "none")]
    return [(key, _in_words(value))]


def _in_words(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
