"""Read the recipe and the overrides that a call of the API is given."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RecipeError

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe

# Values by key, {"train.phases.0.lr": 1e-3}, or texts as the commands take them, ["train.phases.0.lr=1e-3"].
Overrides = Mapping[str, object] | Sequence[str]
NAME = "recipe"
# The place in a text that the user never saw.
_PLACE = re.compile(rf"^{NAME}:\d+:\d+:")


def load_recipe(path: str | os.PathLike[str], overrides: Overrides | None = None) -> "Recipe":
    """Read a recipe file.

    Args:
        overrides: values by key, such as ``{"train.batch_size": 16}``.

    Raises:
        RecipeError: every problem of the file and the overrides, each with its place.
    """
    from finetune.recipe import load

    return load.load_recipe(Path(path), override_flags(overrides))


@dataclass(frozen=True)
class GivenRecipe:
    """A recipe to train, and its text for the run directory; None: the resolved recipe serves as one."""

    recipe: "Recipe"
    text: bytes | None


def read_recipe_argument(
    recipe: "Path | Mapping[str, Any] | Recipe", flags: Sequence[str] = ()
) -> GivenRecipe:
    """Read a recipe file, a mapping of sections, or a Recipe, and apply overrides.

    Args:
        flags: overrides as :func:`override_flags` writes them.

    Raises:
        RecipeError: every problem of the recipe and the overrides.
    """
    from finetune.recipe.load import dump_recipe, load_recipe, parse_recipe, read_recipe

    if isinstance(recipe, Path):
        return GivenRecipe(load_recipe(recipe, flags), read_recipe(recipe))
    if isinstance(recipe, Mapping):
        text = _yaml(recipe)
    elif flags:
        text = dump_recipe(recipe)
    else:
        return GivenRecipe(recipe, None)
    try:
        return GivenRecipe(
            parse_recipe(text, NAME, flags), text.encode() if isinstance(recipe, Mapping) else None
        )
    except RecipeError as error:
        raise RecipeError([_PLACE.sub(f"{NAME}:", problem) for problem in error.problems]) from None


def override_flags(overrides: Overrides | None) -> list[str]:
    """Write overrides as the texts that ``--set`` takes: one schema and one set of messages for both."""
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        return [f"{key}={_json(value)}" for key, value in overrides.items()]
    if isinstance(overrides, str):
        raise TypeError("overrides: pass a mapping or a list of 'KEY=VALUE', not one text")
    return list(overrides)


def _yaml(recipe: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(
        json.loads(_json(recipe)), sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**20
    )
    return text


def _json(value: object) -> str:
    # JSON's values are YAML's.
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Paths as texts; NumPy's numbers and arrays as Python's; sections of the schema as mappings."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} of type {type(value).__name__} is no value of a recipe")
