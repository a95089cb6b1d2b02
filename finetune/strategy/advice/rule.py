"""The rule: from measured facts to a strategy. A table to read and to argue with.

``scripts/calibrate-advice`` tests the rule: it trains every strategy on real data sets and on variants of
them, and writes how much the advised strategy loses against the best one to docs/measured/advice.md.
Thresholds without a stated reason come from there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from finetune.strategy.advice.facts import Facts


class Strategy(StrEnum):
    """The strategies that can be advised."""

    probe = "probe"
    head = "head"
    first_k = "first-k"
    everything = "everything"
    scratch = "scratch"


class Similarity(StrEnum):
    """How similar the images are to those the source network was trained on."""

    similar = "similar"
    between = "in between"
    dissimilar = "dissimilar"


# BatchNorm shift in nats: below the first, the images resemble those of the source; above the second, they
# do not.
SHIFT = (0.1, 0.2)
# If the last quarter of the layers adds less than this to a probe, the source features do not fit.
USELESS = -0.03
# With fewer training images than this in all, or in the smallest class, only the head is trained: there is
# too little data for the rest, and val is too small to show overfitting.
FEW, FEW_OF_A_CLASS = 40, 4
# Tuning needs this many images that the solved head gets wrong. If tuning made no difference, five of them
# would all improve by chance once in 32 times (sign test). For train they are counted by cross-validation;
# for val, the number is expected from that.
LEAST_WRONG = 5
# If the solved head gets this share of the training images wrong, first-k is worth trying although val cannot
# confirm it. With one seed it was better on five sets and variants, by 1.8 to 5.1 points; over five seeds of
# openclipart it is level (docs/measured/advice.md).
MANY_WRONG = 1 / 3
# A val split smaller than this chooses no epoch, however many of its images are wrong.
LEAST_VAL = 20
# Below this number of training images, regularisation is stronger and the general layers stay frozen
# (docs/measured/advice.md).
SMALL = 2_000
# From here on, there are enough images to train a network from scratch if necessary.
LARGE, LARGE_PER_CLASS = 20_000, 200
# A probe that is less than this better than guessing has found nothing in the features.
NOTHING_FOUND = 0.05


def similarity(facts: Facts) -> Similarity:
    """Judge how well the source's late features fit these images.

    There are two measurements: the shift of the BatchNorm statistics, if the network has BatchNorm, and the
    accuracy that the last layers add to a probe. One that speaks against the source outweighs the other.
    """
    shift = facts.shift
    if facts.deeper <= USELESS or (shift is not None and shift > SHIFT[1]):
        return Similarity.dissimilar
    if facts.deeper > 0 and (shift is None or shift < SHIFT[0]):
        return Similarity.similar
    return Similarity.between


def is_tiny(facts: Facts) -> bool:
    return facts.train < FEW or facts.fewest < FEW_OF_A_CLASS


def is_small(facts: Facts) -> bool:
    return facts.train < SMALL


def is_large(facts: Facts) -> bool:
    return facts.train >= LARGE and facts.per_class >= LARGE_PER_CLASS


def error_rate(facts: Facts) -> float:
    """The cross-validated error of the solved head: the most that tuning can gain."""
    return 1 - facts.probe.top1


def gain_shows_on_train(facts: Facts) -> bool:
    return facts.train * error_rate(facts) >= LEAST_WRONG


def gain_shows_on_val(facts: Facts) -> bool:
    return facts.val >= LEAST_VAL and facts.val * error_rate(facts) >= LEAST_WRONG


def needs_tuning(facts: Facts) -> bool:
    """Whether train calls for tuning: the late features do not fit, or the solved head is often wrong."""
    return similarity(facts) is Similarity.dissimilar or error_rate(facts) >= MANY_WRONG


def no_better_than_guessing(facts: Facts) -> bool:
    """Whether no probe, at any depth, is clearly better than always guessing the largest class."""
    guess = max(facts.most / facts.train, 1 / facts.classes)
    return max(each.top1 for each in (*facts.depths, facts.probe)) < guess + NOTHING_FOUND


@dataclass(frozen=True)
class Row:
    """A row of the table: if ``applies`` holds, ``strategy`` is advised. Users read ``when`` and ``why``."""

    when: str
    applies: Callable[[Facts], bool]
    strategy: Strategy
    why: str


_VAL_TOO_SMALL = (
    f"val has fewer than {LEAST_VAL} images, or fewer than {LEAST_WRONG} that a solved head gets wrong"
)

# The first row that applies decides.
RULE: tuple[Row, ...] = (
    Row(
        "many images, unlike the source's, and a probe does no better than guessing",
        lambda facts: (
            is_large(facts) and similarity(facts) is Similarity.dissimilar and no_better_than_guessing(facts)
        ),
        Strategy.scratch,
        "the source network does not help, and there are enough images to train without it",
    ),
    Row(
        f"fewer than {FEW} training images, or fewer than {FEW_OF_A_CLASS} in a class",
        is_tiny,
        Strategy.probe,
        "so few images cannot show which network is better; a solved head has nothing to tune",
    ),
    Row(
        f"fewer than {LEAST_WRONG} training images that a solved head gets wrong",
        lambda facts: not gain_shows_on_train(facts),
        Strategy.probe,
        "a gain from tuning would be too small to measure",
    ),
    Row(
        f"{_VAL_TOO_SMALL}; the late features fit",
        lambda facts: not gain_shows_on_val(facts) and not needs_tuning(facts),
        Strategy.probe,
        "val cannot show whether tuning helps, and train does not call for it",
    ),
    Row(
        f"{_VAL_TOO_SMALL}; the late features do not fit, or a solved head gets a third of train wrong",
        lambda facts: not gain_shows_on_val(facts),
        Strategy.first_k,
        "cross-validation on train calls for tuning; val cannot choose an epoch, so the last one is used",
    ),
    Row(
        f"fewer than {SMALL:,} training images",
        is_small,
        Strategy.first_k,
        "layers before the best probe are general, and so few images do not improve them; the rest is tuned",
    ),
    Row(
        "enough images to tune all layers, and useful source features",
        lambda facts: True,
        Strategy.everything,
        "tuning starts from the solved head, and val keeps the head if tuning does not help",
    ),
)


@dataclass(frozen=True)
class Choice:
    """The advised strategy, the row that applied, and the judged similarity."""

    strategy: Strategy
    row: Row
    similarity: Similarity


def choose(facts: Facts) -> Choice:
    """Apply the first row of ``RULE`` whose condition holds."""
    row = next(each for each in RULE if each.applies(facts))
    return Choice(row.strategy, row, similarity(facts))
