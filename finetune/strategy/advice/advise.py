"""Images to advice: the table of contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.errors import UserError
from finetune.recipe.load import minimal_recipe, parse_recipe
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.duration import expected_seconds
from finetune.strategy.advice.facts import Facts
from finetune.strategy.advice.first_pass import FirstPass, Tell, compute_for, first_pass, silent
from finetune.strategy.advice.measure import look_closer
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import (
    Choice,
    Settings,
    Strategy,
    choose,
    of_solved_head,
    settle,
    total_epochs,
    worth_trying,
)
from finetune.strategy.advice.shapes import with_shape
from finetune.training.compute.in_force import in_force

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


@dataclass(frozen=True)
class Begun:
    """Advice after the first pass of the images: ``recipe`` is the text of one for a first model.

    Its only phase is the first one of nearly every advice, a solved head.
    """

    first: FirstPass
    recipe: str


def begin(recipe: Recipe, *, device: str | None = None, tell: Tell = silent) -> Begun:
    """The first part of :func:`advise`, with its arguments and errors."""
    compute = compute_for(recipe, device)
    with in_force(compute):
        first = first_pass(recipe, compute, tell)
    splits = first.source.splits
    settings = of_solved_head(len(splits["train"]), len(splits["val"]))
    return Begun(first, write_recipe(with_shape(recipe, first.shapes), Strategy.probe, settings))


def advise(
    recipe: Recipe, *, device: str | None = None, tell: Tell = silent, begun: Begun | None = None
) -> Advice:
    """Measure ``recipe``'s images and source network, and choose.

    Args:
        recipe: its data, model, seed and cache count; what it says of training does not.
        tell: as :func:`finetune.strategy.advice.measure.measure`.
        begun: of :func:`begin` with the same recipe, to go on from.

    Raises:
        UserError: weights that cannot be had, or a network that cannot be cut.
        DataError: the data cannot serve.
    """
    first = (begun or begin(recipe, device=device, tell=tell)).first
    with in_force(first.compute):
        facts = look_closer(recipe, first, tell, worth_trying)
    recipe = with_shape(recipe, facts.shapes)
    choice = choose(facts)
    settings = settle(choice.strategy, facts)
    seconds = expected_seconds(choice.strategy, settings, facts)
    reasons = tuple(explain(facts, choice, settings, seconds))
    text = write_recipe(recipe, choice.strategy, settings, reasons)
    parse_recipe(text, "advice")  # a recipe that cannot be run is a fault here, and not at its user's
    return Advice(facts, choice, settings, seconds, reasons, text)


def base_recipe(source: str, backbone: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe that says which images and which network; how to train is what advice is asked for.

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
