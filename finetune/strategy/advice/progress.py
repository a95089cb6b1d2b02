"""How advice reports its progress."""

from collections.abc import Callable

# Called with a stage, such as "at several depths", the number of images done in it, and their total.
OnStage = Callable[[str, int, int], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing."""
