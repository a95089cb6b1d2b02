"""The expected duration of an advised training on this machine, from measured times per image."""

from finetune.strategy.advice.facts import Facts
from finetune.strategy.advice.rule import Strategy
from finetune.strategy.advice.settings import Settings

# The constant part, in seconds: starting, solving the head, saving.
ONCE = 10.0


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
