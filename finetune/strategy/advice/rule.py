"""The rule: what was measured -> which fine-tuning. A table, to be read and argued with.

``scripts/calibrate-advice`` tries the rule out: it trains every strategy on real sets and on variants made of
them, and writes what the advised one loses against the best into docs/advice.md. Numbers without a
reason beside them come from there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from finetune.recipe.schema import AugmentSection
from finetune.strategy.advice.facts import Facts, Tried
from finetune.strategy.advice.invariance import AUGMENTATIONS


class Strategy(StrEnum):
    """What can be advised."""

    probe = "probe"
    head = "head"
    first_k = "first-k"
    everything = "everything"
    scratch = "scratch"


WORDS = {
    Strategy.probe: "a linear classifier on frozen features, solved exactly",
    Strategy.head: "the head alone, by gradient steps",
    Strategy.first_k: "the first layers frozen, the rest tuned after the head",
    Strategy.everything: "the head first, then everything, gently",
    Strategy.scratch: "everything from random weights",
}


class Similarity(StrEnum):
    """Of the pictures to what the source network knows."""

    similar = "similar"
    between = "in between"
    dissimilar = "dissimilar"


# BatchNorm's shift, in nats: below the first the statistics are those of the source's own kind of pictures,
# above the second they are not.
SHIFT = (0.1, 0.2)
# What the last quarter of the layers adds to a probe on the sample: less than this speaks against the source.
USELESS = -0.03
# Fewer training pictures than this in all, or in the smallest class, and nothing but the head is moved: the
# rest has too little to hold on to, and val is too small to notice.
FEW, FEW_OF_A_CLASS = 40, 4
# Below, regularisation is stronger and the general layers are left alone (docs/advice.md).
SMALL = 2_000
# From here on a set is large: it can fill a network by itself, if it must.
LARGE, LARGE_PER_CLASS = 20_000, 200
# A probe that does no better than this above chance has found nothing in the features.
NOTHING_FOUND = 0.05
# A classifier that puts so many copies where it puts the originals sees no difference.
KNOWN_WELL = 0.9
# Where a classifier tells mirrored copies from originals more often than this, there are none among those.
TOLD = 2 / 3
# On so many val pictures the standard error of 80 % top-1 is 2.8 points, more than most epochs differ by.
SMALL_VAL = 200
# BatchNorm keeps its statistics below this number of steps a run.
FEW_STEPS = 1_000


def similarity(facts: Facts) -> Similarity:
    """Whether the source's late features were made for such pictures.

    Two witnesses: BatchNorm's statistics (of networks that have any), and whether a probe gains or loses by
    the last layers. One that speaks against outweighs one that speaks for.
    """
    shift = facts.shift
    if facts.deeper <= USELESS or (shift is not None and shift > SHIFT[1]):
        return Similarity.dissimilar
    if facts.deeper > 0 and (shift is None or shift < SHIFT[0]):
        return Similarity.similar
    return Similarity.between


def few(facts: Facts) -> bool:
    return facts.train < FEW or facts.fewest < FEW_OF_A_CLASS


def large(facts: Facts) -> bool:
    return facts.train >= LARGE and facts.per_class >= LARGE_PER_CLASS


def general_layers(facts: Facts) -> int:
    """How many of the first layers serve these pictures as they are: up to the depth before the best probe's.

    Where the best one is the first, half of its layers.
    """
    best = max(range(len(facts.depths)), key=lambda place: facts.depths[place].top1)
    return facts.depths[best - 1].layer if best else max(1, facts.depths[0].layer // 2)


def finds_nothing(facts: Facts) -> bool:
    """Whether no probe, at any depth, is clearly better than guessing the largest class."""
    guess = max(facts.most / facts.train, 1 / facts.classes)
    return max(each.top1 for each in (*facts.depths, facts.probe)) < guess + NOTHING_FOUND


@dataclass(frozen=True)
class Row:
    """One line of the table: where ``applies`` holds, ``strategy`` is advised, because of ``why``."""

    when: str
    applies: Callable[[Facts], bool]
    strategy: Strategy
    why: str


# From the top; the first that applies decides.
RULE: tuple[Row, ...] = (
    Row(
        "large, dissimilar, and the features tell the classes no better than guessing",
        lambda facts: large(facts) and similarity(facts) is Similarity.dissimilar and finds_nothing(facts),
        Strategy.scratch,
        "the source has nothing to give here, and there are pictures enough to do without",
    ),
    Row(
        f"fewer than {FEW} training pictures, or than {FEW_OF_A_CLASS} of a class",
        few,
        Strategy.probe,
        "so few pictures cannot tell a better network from a worse one; a solved head has nothing to tune",
    ),
    Row(
        f"fewer than {SMALL:,} training pictures",
        lambda facts: facts.train < SMALL,
        Strategy.first_k,
        "layers before the best probe are general, and so few pictures do not better them; the rest is tuned",
    ),
    Row(
        "pictures enough to tune on, and features worth starting from",
        lambda facts: True,
        Strategy.everything,
        "tuning starts from the solved head, and val keeps that where tuning does not help",
    ),
)


@dataclass(frozen=True)
class Choice:
    """What the rule chose: ``row`` is the line that applied, ``similarity`` how the pictures were judged."""

    strategy: Strategy
    row: Row
    similarity: Similarity


def choose(facts: Facts) -> Choice:
    """The first row of ``RULE`` that applies."""
    row = next(each for each in RULE if each.applies(facts))
    return Choice(row.strategy, row, similarity(facts))


@dataclass(frozen=True)
class Settings:
    """How a strategy is carried out on these pictures.

    ``k`` of layers that are frozen while the rest is tuned; ``epochs`` and ``lr`` (the body's) of the tuning.
    """

    k: int
    epochs: int
    lr: float
    batch_size: int
    batchnorm: str
    augment: AugmentSection
    label_smoothing: float
    weight_decay: float
    select: str


def settle(strategy: Strategy, facts: Facts) -> Settings:
    """Rates, lengths, regularisation and augmentation for ``strategy``, whichever the rule chose."""
    near = similarity(facts)
    batch_size = 16 if facts.train < 160 else 32 if facts.train < LARGE else 64
    epochs = epochs_for(strategy, facts.train)
    steps = epochs * math.ceil(facts.train / batch_size)
    tuned = strategy in (Strategy.first_k, Strategy.everything)
    rate = 3e-4 if near is Similarity.similar else 5e-4
    small = facts.train < SMALL
    return Settings(
        k=general_layers(facts) if strategy is Strategy.first_k else 0,
        epochs=epochs,
        lr=rate if tuned else 1e-3,
        batch_size=batch_size,
        batchnorm="frozen" if tuned and steps < FEW_STEPS else "train",
        augment=augmentation(facts) if tuned or strategy is Strategy.scratch else AugmentSection(),
        label_smoothing=0.1 if small and tuned else 0.0,
        weight_decay=0.05 if small else 0.01,
        select="loss" if facts.val < SMALL_VAL else "top1",
    )


def epochs_for(strategy: Strategy, train: int) -> int:
    """Fewer, the more pictures: an epoch of many pictures is many steps.

    From 15 at 300 pictures to 4 at 4,000 and more; a head alone, whose features are computed once, takes
    30, and from scratch it takes four times as long.
    """
    if strategy is Strategy.probe:
        return 1
    if strategy is Strategy.head:
        return 30
    tuned = max(4, min(15, round(250 / math.sqrt(train))))
    return 4 * tuned if strategy is Strategy.scratch else tuned


def total_epochs(strategy: Strategy, settings: Settings) -> int:
    """Of the whole run: the head that is solved before the rest is tuned counts as one."""
    return settings.epochs + (strategy in (Strategy.first_k, Strategy.everything))


# Few worlds have these; each costs time and some of the network's capacity.
RARE = frozenset({"vertical_flip", "rotation", "color_jitter"})


def bears(tried: Tried) -> bool:
    """Whether the copies that an augmentation makes could be pictures of their class, as far as can be told.

    Mirrored ones must pass for originals.
    """
    doubt = 2 if tried.kept >= KNOWN_WELL else 1
    misleads = tried.gain < -doubt * max(tried.error, 0.005)
    return not misleads and (tried.told is None or tried.told <= TOLD)


def augmentation(facts: Facts) -> AugmentSection:
    """All that these pictures bear, of ``RARE`` only what clearly helps."""
    chosen: dict[str, object] = {}
    for name, tried in facts.tried.items():
        helps = tried.gain > 2 * tried.error > 0
        if bears(tried) and (name not in RARE or helps):
            chosen |= AUGMENTATIONS[name].model_dump(exclude_defaults=True)
    return AugmentSection.model_validate(chosen)
