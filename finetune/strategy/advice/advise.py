"""From images to advice: the table of contents."""

from dataclasses import dataclass
from typing import Any

from finetune.errors import UserError
from finetune.features.progress import OnStage, no_progress
from finetune.recipe.load import minimal_recipe, parse_recipe
from finetune.recipe.overrides import Overrides, cite
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.augmentation_rule import augmentations_to_try
from finetune.strategy.advice.facts import Facts
from finetune.strategy.advice.first_pass import FirstPass, first_pass
from finetune.strategy.advice.measure import measure_after
from finetune.strategy.advice.reasons import explain
from finetune.strategy.advice.recipe_text import write_recipe
from finetune.strategy.advice.rule import Choice, Strategy, choose
from finetune.strategy.advice.settings import (
    Settings,
    choose_settings,
    expected_seconds,
    solved_head_settings,
    total_epochs,
)
from finetune.strategy.advice.shapes import with_shape
from finetune.strategy.probing.frozen_features import frozen_compute
from finetune.training.compute.in_force import in_force

# The keys that the user may set before there is advice, besides data, seed and cache.
ALLOWED = {"model": {"backbone", "weights", "in_channels"}, "train": {"precision", "threads"}}


@dataclass(frozen=True)
class Advice:
    """Advice on one set of images.

    Attributes:
        facts: the measurements.
        seconds: the expected duration of training.
        reasons: headings and sentences, for people.
        recipe: the text of a recipe file that carries the advice out.
    """

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
            "correction": self.settings.correction,
            "seconds": round(self.seconds, 1),
            "facts": self.facts.to_dict(),
            "recipe": self.recipe,
        }


@dataclass(frozen=True)
class FirstAdvice:
    """Advice after the first pass: ``recipe`` is the text of a recipe for a first model.

    Its only phase is a solved head, which is also the first phase of nearly all advice.
    """

    first: FirstPass
    recipe: str


def begin(recipe: Recipe, *, device: str | None = None, progress: OnStage = no_progress) -> FirstAdvice:
    """Run the first part of :func:`advise`; arguments and errors are the same."""
    compute = frozen_compute(recipe, device)
    with in_force(compute):
        first = first_pass(recipe, compute, progress)
    counts = {name: len(split) for name, split in first.source.splits.items()}
    settings = solved_head_settings(counts, first.uneven)
    return FirstAdvice(first, write_recipe(with_shape(recipe, first.shapes), Strategy.probe, settings))


def advise(
    recipe: Recipe,
    *,
    device: str | None = None,
    progress: OnStage = no_progress,
    begun: FirstAdvice | None = None,
) -> Advice:
    """Measure the images and source network of ``recipe``, and advise.

    Args:
        recipe: only its data, model, seed and cache are used.
        begun: from :func:`begin` with the same recipe, to continue from.

    Raises:
        UserError: the weights are not available, or the network cannot be cut.
        DataError: the data is unusable.
    """
    first = (begun or begin(recipe, device=device, progress=progress)).first
    with in_force(first.setup.compute):
        facts = measure_after(first, recipe, progress, augmentations_to_try)
    recipe = with_shape(recipe, facts.shapes)
    choice = choose(facts)
    settings = choose_settings(choice.strategy, facts)
    seconds = expected_seconds(choice.strategy, settings, facts)
    reasons = tuple(explain(facts, choice, settings, seconds))
    text = write_recipe(recipe, choice.strategy, settings, reasons)
    parse_recipe(text, "advice")  # an invalid recipe is our bug, and must not reach the user
    return Advice(facts, choice, settings, seconds, reasons, text)


def base_recipe(source: str, backbone: str, overrides: Overrides = ()) -> Recipe:
    """Make a recipe of images and a network, with no training settings: advice chooses those.

    Raises:
        RecipeError: as :func:`finetune.recipe.load.minimal_recipe`.
        UserError: ``overrides`` set a key that advice chooses.
    """
    for override in overrides:
        path, _, _ = override.partition("=")
        section, _, rest = path.partition(".")
        if section in ALLOWED and rest.split(".")[0] not in ALLOWED[section]:
            raise UserError(
                f"{cite(overrides, path)}: advice chooses this key. Write the advice to a file with "
                "`finetune advise SOURCE -o recipe.yaml`, and change it there."
            )
    return minimal_recipe(source, backbone, overrides=overrides, name="advice")
