"""How long an advised training takes on this machine, from what was measured of single images."""

from finetune.strategy.advice.facts import Facts
from finetune.strategy.advice.rule import Settings, Strategy

# A solved head, saving, and the start of the program; what does not grow with the images.
ONCE = 10.0


def expected_seconds(strategy: Strategy, settings: Settings, facts: Facts) -> float:
    """Of the whole run: reading, computing and judging, and test at the end. Good to a factor of two.

    Features of the head's phase are taken as kept, as they are after advice.
    """
    seconds = facts.seconds
    look = seconds.read + seconds.forward
    once = ONCE + look * facts.test
    if strategy is Strategy.probe:
        return once + look * facts.val
    if strategy is Strategy.head:
        # Steps of a linear layer on kept features cost next to nothing.
        return once + look * facts.val + 0.1 * settings.epochs
    frozen = facts.shares[settings.k - 1] if settings.k else 0.0
    step = frozen * seconds.forward + (1 - frozen) * seconds.step
    return once + settings.epochs * ((seconds.read + step) * facts.train + look * facts.val)


def in_words(seconds: float) -> str:
    """``about 40 seconds``, ``about 7 minutes``, ``about 2.5 hours``."""
    if seconds < 90:
        return f"about {max(10, 10 * round(seconds / 10))} seconds"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} minutes"
    return f"about {seconds / 3600:.1f} hours"
