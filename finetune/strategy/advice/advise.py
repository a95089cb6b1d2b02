"""Pictures to advice: the table of contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.errors import UserError
from finetune.recipe.load import minimal_recipe, parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.duration import expected_seconds
from finetune.strategy.advice.facts import Facts
from finetune.strategy.advice.measure import Tell, measure, silent
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import Choice, Settings, choose, settle, total_epochs, worth_trying
from finetune.strategy.advice.shapes import with_shape

# What may be given before there is advice, beside data, seed and cache.
KNOWN = {"model": {"backbone", "weights", "in_channels"}, "train": {"precision", "threads"}}


@dataclass(frozen=True)
class Advice:
    """What is advised: ``recipe`` is the text of a recipe file that says it, ``seconds`` what it takes."""

    facts: Facts
    choice: Choice
    settings: Settings
    seconds: float
    reasons: tuple[tuple[str, str], ...]
    recipe: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "strategy": self.choice.strategy.value,
            "similarity": self.choice.similarity.value,
            "because": {"when": self.choice.row.when, "why": self.choice.row.why},
            "freeze": self.settings.k,
            "epochs": total_epochs(self.choice.strategy, self.settings),
            "lr": self.settings.lr,
            "seconds": round(self.seconds, 1),
            "facts": self.facts.to_dict(),
            "recipe": self.recipe,
        }


def advise(recipe: Recipe, *, device: str | None = None, tell: Tell = silent) -> Advice:
    """Measure ``recipe``'s pictures and source network, and choose.

    Args:
        recipe: its data, model, seed and cache count; what it says of training does not.
        tell: as :func:`finetune.strategy.advice.measure.measure`.

    Raises:
        UserError: weights that cannot be had, or a network that cannot be cut.
        DataError: the data cannot serve.
    """
    facts = measure(recipe, device=device, tell=tell, augmentations=worth_trying)
    recipe = with_shape(recipe, facts.shapes)
    choice = choose(facts)
    settings = settle(choice.strategy, facts)
    seconds = expected_seconds(choice.strategy, settings, facts)
    reasons = tuple(explain(facts, choice, settings, seconds))
    text = write_recipe(recipe, choice.strategy, settings, reasons)
    parse_recipe(text, "advice")  # a recipe that cannot be run is a fault here, and not at its user's
    return Advice(facts, choice, settings, seconds, reasons, text)


def base_recipe(source: str, backbone: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that says which pictures and which network; how to train is what advice is asked for.

    Raises:
        RecipeError: as :func:`finetune.recipe.load.minimal_recipe`.
        UserError: ``overrides`` say more than that.
    """
    for override in overrides:
        path, _, _ = override.partition("=")
        section, _, rest = path.partition(".")
        if section in KNOWN and rest.split(".")[0] not in KNOWN[section]:
            raise UserError(
                f"--set {path}: that is for the advice to say. Write it to a file, with `finetune advise "
                "SOURCE -o recipe.yaml`, and change it there."
            )
    return minimal_recipe(source, backbone, overrides=overrides, name="advice")
