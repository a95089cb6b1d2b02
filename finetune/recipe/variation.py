"""One recipe under several values of one key: ``--vary train.phases.0.freeze=0,3,6``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import RecipeError, UserError, printable
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe

OPTION = "--vary"
_BRACKETS = {"[": "]", "{": "}"}
# The longest value in the name of a run directory.
_NAME_LENGTH = 60


@dataclass(frozen=True)
class Variation:
    """A key and the values that it takes, as the user wrote them."""

    key: str
    values: tuple[str, ...]

    def names(self, stem: str) -> list[str]:
        """The name of the run of each value: ``STEM-KEY-VALUE``, without characters that a path cannot have.

        Raises:
            UserError: two values would have the same name.
        """
        safe = [re.sub(r"[^\w.+-]+", "_", value)[:_NAME_LENGTH] for value in self.values]
        if len(set(safe)) < len(safe):
            raise UserError(f"{OPTION}: two of the values would be trained in the same run directory")
        return [f"{stem}-{self.key}-{value}" for value in safe]


def read_variation(flag: str) -> Variation:
    """Read ``KEY=V1,V2``. Commas within brackets, as in ``[0.5, 1]``, separate nothing.

    Raises:
        UserError: it has another form, or fewer than two values.
    """
    key, equals, text = flag.partition("=")
    values = _split(text)
    if not equals or not key.strip() or len(values) < 2 or not all(values):
        raise UserError(
            f"{OPTION} {printable(flag)}: write a key and two values or more, such as {OPTION} "
            "train.phases.0.freeze=0,3,backbone"
        )
    return Variation(re.sub(r"\[([0-9]+)\]", r".\1", key.strip()), values)


def vary(path: Path, overrides: Sequence[str], variation: Variation) -> list[Recipe]:
    """Read the recipe at ``path`` with each value of ``variation``.

    Raises:
        RecipeError: all faults of the file, the overrides and the values; those of a value cite the option.
        UserError: two values give the same recipe.
    """
    recipes, problems = list[Recipe](), list[str]()
    for value in variation.values:
        flag = f"{variation.key}={value}"
        try:
            recipes.append(load_recipe(path, [*overrides, flag]))
        except RecipeError as error:
            cited = f"--set {printable(flag)}"
            problems += [
                f"{OPTION} {line.removeprefix('--set ')}" if line.startswith(cited) else line
                for line in error.problems
            ]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    for place, recipe in enumerate(recipes):
        if recipe in recipes[:place]:
            first = variation.values[recipes.index(recipe)]
            raise UserError(
                f"{OPTION} {printable(variation.key)}: {printable(first)} and "
                f"{printable(variation.values[place])} are the same recipe"
            )
    return recipes


def _split(text: str) -> tuple[str, ...]:
    parts, waiting = [""], list[str]()
    for char in text:
        if char in _BRACKETS:
            waiting.append(_BRACKETS[char])
        elif waiting and char == waiting[-1]:
            waiting.pop()
        if char == "," and not waiting:
            parts.append("")
        else:
            parts[-1] += char
    return tuple(part.strip() for part in parts)
