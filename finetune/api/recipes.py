"""Read the recipe that a call of the API is given."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import RecipeError

if TYPE_CHECKING:
    from finetune.recipe.overrides import Overrides
    from finetune.recipe.schema import Recipe

NAME = "recipe"
# The place in a text that the user never saw.
_PLACE = re.compile(rf"^{NAME}:\d+:\d+:")


def load_recipe(path: str | os.PathLike[str], overrides: "Overrides | None" = None) -> "Recipe":
    """Read a recipe file.

    Args:
        overrides: values by key, such as ``{"train.batch_size": 16}``.

    Raises:
        RecipeError: every problem of the file and the overrides, each with its place.
    """
    from finetune.recipe import load

    return load.load_recipe(Path(path), overrides or ())


def read_recipe_argument(
    recipe: "Path | Mapping[str, Any] | Recipe", overrides: "Overrides" = ()
) -> "tuple[Recipe, bytes | None]":
    """Read a recipe file, a mapping of sections, or a Recipe, and apply overrides.

    Returns:
        The recipe, and its text for the run directory. A Recipe has none: the resolved recipe serves as one.

    Raises:
        RecipeError: every problem of the recipe and the overrides.
    """
    from finetune.recipe.load import dump_recipe, load_recipe, parse_recipe, read_recipe

    if isinstance(recipe, Path):
        return load_recipe(recipe, overrides), read_recipe(recipe)
    if isinstance(recipe, Mapping):
        text = _yaml(recipe)
    elif overrides:
        text = dump_recipe(recipe)
    else:
        return recipe, None
    try:
        read = parse_recipe(text, NAME, overrides)
    except RecipeError as error:
        raise RecipeError([_PLACE.sub(f"{NAME}:", problem) for problem in error.problems]) from None
    return read, text.encode() if isinstance(recipe, Mapping) else None


def _yaml(recipe: Mapping[str, Any]) -> str:
    import yaml

    from finetune.recipe.overrides import to_json

    plain = json.loads(to_json(recipe))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=2**20)
    return text
