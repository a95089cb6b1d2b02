"""The settings of a strategy (rates, lengths, regularisation) and its duration, computed from the facts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune.recipe.schema import AugmentSection
from finetune.strategy.advice.augmentation_rule import chosen_augmentations
from finetune.strategy.advice.facts import Correction, Facts, Uneven
from finetune.strategy.advice.rule import (
    LARGE,
    SMALL,
    Similarity,
    Strategy,
    gain_shows_on_val,
    is_small,
    needs_tuning,
    similarity,
)

# With this many val images, the standard error of 80 % top-1 is 2.8 points, more than most epochs differ by.
SMALL_VAL = 200
# If the source's features fit, tuning ends after this many epochs, or a third of all, without a better val.
# It is more than one, because tuning first loses what the solved head has; trashnet took four epochs to
# regain it. If the features do not fit, tuning takes longer: omniglot_greek reached 94.6 % with all epochs
# and 87.9 % with early stopping (five seeds of `scripts/calibrate-advice`, n = 96).
PATIENCE = 4
# In runs with fewer steps than this, BatchNorm keeps the source's statistics.
FEW_STEPS = 1_000
# The constant part of a duration, in seconds: starting, solving the head, saving.
ONCE = 10.0


@dataclass(frozen=True)
class Settings:
    """How a strategy is carried out.

    Attributes:
        k: the number of frozen layers during tuning.
        epochs, lr: of the tuning; the rate is the body's.
        early_stopping: ends tuning after this many epochs without a better val; None: never.
        correction: for classes of uneven size.
        refit: whether val is trained on as well, once the epoch is chosen.
    """

    epochs: int
    lr: float
    batch_size: int
    weight_decay: float
    select: str
    k: int = 0
    batchnorm: str = "train"
    augment: AugmentSection = field(default_factory=AugmentSection)
    label_smoothing: float = 0.0
    early_stopping: int | None = None
    correction: Correction = "none"
    refit: bool = False


def solved_head_settings(counts: Mapping[str, int], uneven: Uneven | None) -> Settings:
    """Return the settings of ``Strategy.probe``; only the numbers of images and their classes matter.

    A small val is trained on as well, since solving a head twice costs seconds, and gains accuracy
    (docs/measured/refit.md). Not without a test split: val then has to show how good the network is.

    Args:
        counts: the number of images by split: train, val and perhaps test.
    """
    train, val = counts["train"], counts["val"]
    return Settings(
        epochs=epochs_for(Strategy.probe, train),
        lr=1e-3,
        batch_size=_batch_size(train),
        weight_decay=_weight_decay(train),
        select=_select(val, uneven),
        correction="none" if uneven is None else uneven.best,
        refit=val < SMALL_VAL and counts.get("test", 0) > 0,
    )


def choose_settings(strategy: Strategy, facts: Facts) -> Settings:
    """Choose the settings of ``strategy``, whether the rule advises it or not."""
    if strategy is Strategy.probe:
        counts = {"train": facts.train, "val": facts.val, "test": facts.test}
        return solved_head_settings(counts, facts.uneven)
    near = similarity(facts)
    batch_size = _batch_size(facts.train)
    epochs = epochs_for(strategy, facts.train)
    steps = epochs * math.ceil(facts.train / batch_size)
    tuned = strategy in (Strategy.first_k, Strategy.everything)
    rate = 3e-4 if near is Similarity.similar else 5e-4
    stops_early = tuned and gain_shows_on_val(facts) and not needs_tuning(facts)
    return Settings(
        k=general_layers(facts) if strategy is Strategy.first_k else 0,
        epochs=epochs,
        lr=rate if tuned else 1e-3,
        batch_size=batch_size,
        batchnorm="frozen" if tuned and steps < FEW_STEPS else "train",
        augment=chosen_augmentations(facts) if tuned or strategy is Strategy.scratch else AugmentSection(),
        label_smoothing=0.1 if is_small(facts) and tuned else 0.0,
        weight_decay=_weight_decay(facts.train),
        select="last" if tuned and not gain_shows_on_val(facts) else _select(facts.val, facts.uneven),
        early_stopping=_patience(epochs) if stops_early else None,
        correction="none" if facts.uneven is None else facts.uneven.best,
    )


def general_layers(facts: Facts) -> int:
    """Count the first layers that stay frozen: up to the depth before the best probe's.

    If the first probe is the best, half of its layers.
    """
    best = max(range(len(facts.depths)), key=lambda place: facts.depths[place].top1)
    return facts.depths[best - 1].layer if best else max(1, facts.depths[0].layer // 2)


def epochs_for(strategy: Strategy, train: int) -> int:
    """Choose the number of epochs: fewer with more images, because an epoch then has more steps.

    Tuning takes from 15 epochs at 300 images to 4 at 4,000 and more. A head alone takes 30, since its
    features are computed once. Training from scratch takes four times as long as tuning.
    """
    if strategy is Strategy.probe:
        return 1
    if strategy is Strategy.head:
        return 30
    tuned = max(4, min(15, round(250 / math.sqrt(train))))
    return 4 * tuned if strategy is Strategy.scratch else tuned


def total_epochs(strategy: Strategy, settings: Settings) -> int:
    """Count the epochs of the whole run. A head that is solved before tuning counts as one."""
    return settings.epochs + (strategy in (Strategy.first_k, Strategy.everything))


def expected_seconds(strategy: Strategy, settings: Settings, facts: Facts) -> float:
    """Estimate the seconds of the whole run, evaluation included. Accurate to a factor of two.

    The features of the head's phase are assumed to be cached, as they are after advice.
    """
    seconds = facts.seconds
    evaluate = seconds.read + seconds.forward
    once = ONCE + evaluate * facts.test
    if strategy is Strategy.probe:
        return once + evaluate * facts.val
    if strategy is Strategy.head:
        # Steps of a linear layer on cached features cost almost nothing.
        return once + evaluate * facts.val + 0.1 * settings.epochs
    frozen = facts.shares[settings.k - 1] if settings.k else 0.0
    step = frozen * seconds.forward + (1 - frozen) * seconds.step
    return once + settings.epochs * ((seconds.read + step) * facts.train + evaluate * facts.val)


def format_duration(seconds: float) -> str:
    """Format seconds as ``about 40 seconds``, ``about 7 minutes`` or ``about 2.5 hours``."""
    if seconds < 90:
        return f"about {max(10, 10 * round(seconds / 10))} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"


def _batch_size(train: int) -> int:
    return 16 if train < 160 else 32 if train < LARGE else 64


def _weight_decay(train: int) -> float:
    return 0.05 if train < SMALL else 0.01


def _select(val: int, uneven: Uneven | None) -> str:
    if uneven is not None:
        return "balanced_accuracy"
    return "loss" if val < SMALL_VAL else "top1"


def _patience(epochs: int) -> int | None:
    """Return None if the run is too short to reach it."""
    patience = max(PATIENCE, math.ceil(epochs / 3))
    return patience if patience < epochs else None
