"""The rule for augmentations: which are measured, and which are used."""

import math
from enum import StrEnum

from finetune.recipe.schema import AugmentSection
from finetune.strategy.advice.augmentations import AUGMENTATIONS
from finetune.strategy.advice.facts import Facts, Tried
from finetune.strategy.advice.rule import LEAST_WRONG, Similarity, Strategy, choose, error_rate, similarity

# Augmentations that few kinds of images need. They cost time and capacity, so they are used only if they
# help.
RARE = frozenset({"vertical_flip", "rotation", "color_jitter"})
# If at least this share of the predictions does not change, the classifier hardly sees the augmentation.
KNOWN_WELL = 0.9
# If a classifier separates mirrored copies from originals more often than this, such images do not occur
# naturally. Within two standard errors, which are large for few images, the result is uncertain.
SEPARATED = 2 / 3
# With two standard errors above this, an accuracy near ``SEPARATED`` says nothing.
CLEAR = 0.1


class Verdict(StrEnum):
    """The verdict on an augmentation."""

    used = "used"
    not_needed = "not needed"
    refused = "refused"


def judge(name: str, tried: Tried, near: Similarity) -> tuple[Verdict, str]:
    """Decide whether an augmentation is used, and state the rule that was applied.

    The copies must be plausible images of their class; mirrored copies must pass for originals. If the images
    are too few to tell, the usual case decides: photos can be mirrored, but images unlike the source's, such
    as writing, cannot.
    """
    doubt = 2 if tried.kept >= KNOWN_WELL else 1
    if tried.gain < -doubt * max(tried.error, 0.005):
        return Verdict.refused, f"training on copies costs more than {_errors(doubt)}"
    said = ""
    if tried.told is not None:
        margin = 2 * math.sqrt(SEPARATED * (1 - SEPARATED) / tried.n)
        if tried.told > SEPARATED + margin:
            return (
                Verdict.refused,
                f"copies are distinguished from originals in more than {100 * (SEPARATED + margin):.0f} %",
            )
        if tried.told > SEPARATED - margin and margin > CLEAR:
            said = f"{tried.n} images are too few to show whether copies pass for originals; "
            if near is Similarity.dissimilar:
                return Verdict.refused, f"{said}images unlike the source's may be writing"
            said += "photos usually do; "
    if name not in RARE:
        return Verdict.used, f"{said}used unless training on copies costs more than {_errors(doubt)}"
    rule = f"{said}rarely useful, so used only if it gains more than 2 standard errors"
    helps = tried.gain > 2 * tried.error > 0
    return (Verdict.used if helps else Verdict.not_needed), rule


def _errors(number: int) -> str:
    return f"{number} standard error{'s' if number > 1 else ''}"


def chosen_augmentations(facts: Facts) -> AugmentSection:
    """Combine all augmentations whose verdict is ``used``."""
    near = similarity(facts)
    chosen: dict[str, object] = {}
    for name, tried in facts.tried.items():
        if judge(name, tried, near)[0] is Verdict.used:
            chosen |= AUGMENTATIONS[name].model_dump(exclude_defaults=True)
    return AugmentSection.model_validate(chosen)


def augmentations_to_try(facts: Facts, n: int) -> tuple[str, ...]:
    """Choose the augmentations to measure on ``n`` images; none if nothing is tuned.

    ``RARE`` ones are left out if they could not gain two standard errors: fewer than ``LEAST_WRONG`` images
    are wrong.
    """
    if choose(facts).strategy in (Strategy.probe, Strategy.head):
        return ()
    rare = n * error_rate(facts) >= LEAST_WRONG
    return tuple(name for name in AUGMENTATIONS if rare or name not in RARE)
