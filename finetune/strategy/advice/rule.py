"""The rule: what was measured -> which fine-tuning. A table, to be read and argued with.

``scripts/calibrate-advice`` tries the rule out: it trains every strategy on real sets and on variants made of
them, and writes what the advised one loses against the best into docs/measured/advice.md. Numbers without a
reason beside them come from there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from finetune.recipe.schema import AugmentSection
from finetune.strategy.advice.augmentations import AUGMENTATIONS
from finetune.strategy.advice.facts import Facts, Tried


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
    """Of the images to what the source network knows."""

    similar = "similar"
    between = "in between"
    dissimilar = "dissimilar"


# BatchNorm's shift, in nats: below the first the statistics are those of the source's own kind of images,
# above the second they are not.
SHIFT = (0.1, 0.2)
# What the last quarter of the layers adds to a probe on the sample: less than this speaks against the source.
USELESS = -0.03
# Fewer training images than this in all, or in the smallest class, and nothing but the head is moved: the
# rest has too little to hold on to, and val is too small to notice.
FEW, FEW_OF_A_CLASS = 40, 4
# So many images that the solved head gets wrong have to be there to speak for tuning: were the two equally
# good, five would all speak for it once in 32 times (the sign test). Of train they are counted by
# cross-validation, of val they are what that lets expect.
SPEAK = 5
# Where a solved head gets so large a share of the training images wrong, first-k is worth trying although
# val cannot tell. With one seed it was better on five sets and variants, by 1.8 to 5.1 points; over five
# seeds of openclipart it is level (docs/measured/advice.md).
MANY_WRONG = 1 / 3
# A val of fewer images than this chooses no epoch, however many of them are wrong.
LEAST_VAL = 20
# Below, regularisation is stronger and the general layers are left alone (docs/measured/advice.md).
SMALL = 2_000
# From here on a set is large: it can fill a network by itself, if it must.
LARGE, LARGE_PER_CLASS = 20_000, 200
# A probe that does no better than this above chance has found nothing in the features.
NOTHING_FOUND = 0.05
# A classifier that puts so many copies where it puts the originals sees no difference.
KNOWN_WELL = 0.9
# Where a classifier tells mirrored copies from originals more often than this, there are none among those.
# Nearer to it than two standard errors, which of few images are large, it can't tell.
TOLD = 2 / 3
# On so many val images the standard error of 80 % top-1 is 2.8 points, more than most epochs differ by.
SMALL_VAL = 200
# Where the source's features fit, tuning ends after so many epochs, or a third of all, in which val likes
# none better. At first it loses what the solved head has; trashnet took four epochs to regain it. Where they
# do not fit it takes longer: omniglot_greek had 94.6 % with all epochs and 87.9 % when it was ended early
# (five seeds of `scripts/calibrate-advice`, n = 96).
PATIENCE = 4
# BatchNorm keeps its statistics below this number of steps a run.
FEW_STEPS = 1_000


def similarity(facts: Facts) -> Similarity:
    """Whether the source's late features were made for such images.

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


def wrong(facts: Facts) -> float:
    """The share of images that a solved head gets wrong, by cross-validation: what tuning can gain."""
    return 1 - facts.probe.top1


def train_can_tell(facts: Facts) -> bool:
    """Whether enough training images are wrong for tuning to be worth anything that can be seen."""
    return facts.train * wrong(facts) >= SPEAK


def val_can_tell(facts: Facts) -> bool:
    """Whether val can tell a tuned network from the solved head, and one epoch from another."""
    return facts.val >= LEAST_VAL and facts.val * wrong(facts) >= SPEAK


def needs_tuning(facts: Facts) -> bool:
    """Whether train alone says so: the late features do not fit, or a solved head gets very much wrong."""
    return similarity(facts) is Similarity.dissimilar or wrong(facts) >= MANY_WRONG


def large(facts: Facts) -> bool:
    return facts.train >= LARGE and facts.per_class >= LARGE_PER_CLASS


def general_layers(facts: Facts) -> int:
    """How many of the first layers serve these images as they are: up to the depth before the best probe's.

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
        "the source has nothing to give here, and there are images enough to do without",
    ),
    Row(
        f"fewer than {FEW} training images, or than {FEW_OF_A_CLASS} of a class",
        few,
        Strategy.probe,
        "so few images cannot tell a better network from a worse one; a solved head has nothing to tune",
    ),
    Row(
        f"fewer than {SPEAK} training images that a solved head gets wrong",
        lambda facts: not train_can_tell(facts),
        Strategy.probe,
        "tuning has nothing to gain that could be seen",
    ),
    Row(
        f"a val of fewer than {LEAST_VAL} images, or than {SPEAK} that a solved head gets wrong, and late "
        "features that fit",
        lambda facts: not val_can_tell(facts) and not needs_tuning(facts),
        Strategy.probe,
        "val cannot tell whether tuning helps, and nothing on train says that it is needed",
    ),
    Row(
        f"a val of fewer than {LEAST_VAL} images, or than {SPEAK} that a solved head gets wrong, and late "
        "features that do not fit, or with which a third of the training images come out wrong",
        lambda facts: not val_can_tell(facts),
        Strategy.first_k,
        "val cannot tell whether tuning helps; probes on the folds of train say that it is needed, and the "
        "epoch is the last, not val's choice",
    ),
    Row(
        f"fewer than {SMALL:,} training images",
        lambda facts: facts.train < SMALL,
        Strategy.first_k,
        "layers before the best probe are general, and so few images do not better them; the rest is tuned",
    ),
    Row(
        "images enough to tune on, and features worth starting from",
        lambda facts: True,
        Strategy.everything,
        "tuning starts from the solved head, and val keeps that where tuning does not help",
    ),
)


@dataclass(frozen=True)
class Choice:
    """What the rule chose: ``row`` is the line that applied, ``similarity`` how the images were judged."""

    strategy: Strategy
    row: Row
    similarity: Similarity


def choose(facts: Facts) -> Choice:
    """The first row of ``RULE`` that applies."""
    row = next(each for each in RULE if each.applies(facts))
    return Choice(row.strategy, row, similarity(facts))


@dataclass(frozen=True)
class Settings:
    """How a strategy is carried out on these images.

    ``k`` of layers that are frozen while the rest is tuned; ``epochs`` and ``lr`` (the body's) of the tuning;
    ``early_stopping`` after so many epochs without a better val, None: never.
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
    early_stopping: int | None


def of_solved_head(train: int, val: int) -> Settings:
    """For ``Strategy.probe``, of so many images; nothing else has to be known."""
    return Settings(
        k=0,
        epochs=epochs_for(Strategy.probe, train),
        lr=1e-3,
        batch_size=_batch_size(train),
        batchnorm="train",
        augment=AugmentSection(),
        label_smoothing=0.0,
        weight_decay=_weight_decay(train),
        select=_select(val),
        early_stopping=None,
    )


def settle(strategy: Strategy, facts: Facts) -> Settings:
    """Rates, lengths, regularisation and augmentation for ``strategy``, whichever the rule chose."""
    if strategy is Strategy.probe:
        return of_solved_head(facts.train, facts.val)
    near = similarity(facts)
    batch_size = _batch_size(facts.train)
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
        weight_decay=_weight_decay(facts.train),
        select="last" if tuned and not val_can_tell(facts) else _select(facts.val),
        early_stopping=_patience(epochs)
        if tuned and val_can_tell(facts) and not needs_tuning(facts)
        else None,
    )


def _batch_size(train: int) -> int:
    return 16 if train < 160 else 32 if train < LARGE else 64


def _weight_decay(train: int) -> float:
    return 0.05 if train < SMALL else 0.01


def _select(val: int) -> str:
    return "loss" if val < SMALL_VAL else "top1"


def _patience(epochs: int) -> int | None:
    """None where it would never be reached."""
    patience = max(PATIENCE, math.ceil(epochs / 3))
    return patience if patience < epochs else None


def epochs_for(strategy: Strategy, train: int) -> int:
    """Fewer, the more images: an epoch of many images is many steps.

    From 15 at 300 images to 4 at 4,000 and more; a head alone, whose features are computed once, takes
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
# Two standard errors of how often mirrored copies are told: with more, what lies near ``TOLD`` is not known.
CLEAR = 0.1


class Verdict(StrEnum):
    """On an augmentation."""

    used = "used"
    not_needed = "not needed"
    refused = "refused"


def judge(name: str, tried: Tried, near: Similarity) -> tuple[Verdict, str]:
    """Whether the copies that an augmentation makes could be images of their class, and the rule in words.

    Mirrored ones must pass for originals. Where it cannot be told whether they do, what is usual decides:
    most images bear it, and what is unlike the source, as writing is, does not.
    """
    doubt = 2 if tried.kept >= KNOWN_WELL else 1
    if tried.gain < -doubt * max(tried.error, 0.005):
        return Verdict.refused, f"learning from copies costs more than {_errors(doubt)}"
    said = ""
    if tried.told is not None:
        margin = 2 * math.sqrt(TOLD * (1 - TOLD) / tried.n)
        if tried.told > TOLD + margin:
            return (
                Verdict.refused,
                f"copies are told from originals in more than {100 * (TOLD + margin):.0f} %",
            )
        if tried.told > TOLD - margin and margin > CLEAR:
            said = f"{tried.n} images can't tell whether copies pass for originals; "
            if near is Similarity.dissimilar:
                return Verdict.refused, f"{said}images unlike the source's may be writing"
            said += "photos usually do; "
    if name not in RARE:
        return Verdict.used, f"{said}used unless learning from copies costs more than {_errors(doubt)}"
    rule = f"{said}rarely right, so used only if it gains more than 2 standard errors"
    helps = tried.gain > 2 * tried.error > 0
    return (Verdict.used if helps else Verdict.not_needed), rule


def _errors(number: int) -> str:
    return f"{number} standard error{'s' if number > 1 else ''}"


def augmentation(facts: Facts) -> AugmentSection:
    """All that these images bear, of ``RARE`` only what clearly helps."""
    near = similarity(facts)
    chosen: dict[str, object] = {}
    for name, tried in facts.tried.items():
        if judge(name, tried, near)[0] is Verdict.used:
            chosen |= AUGMENTATIONS[name].model_dump(exclude_defaults=True)
    return AugmentSection.model_validate(chosen)


def worth_trying(facts: Facts, n: int) -> tuple[str, ...]:
    """The augmentations to measure on ``n`` images: none where nothing is tuned.

    Of ``RARE`` none where it could not gain two standard errors: fewer than ``SPEAK`` images are wrong.
    """
    if choose(facts).strategy in (Strategy.probe, Strategy.head):
        return ()
    rare = n * wrong(facts) >= SPEAK
    return tuple(name for name in AUGMENTATIONS if rare or name not in RARE)
