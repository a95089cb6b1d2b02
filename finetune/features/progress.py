"""How long work on images reports its progress."""

from collections.abc import Callable

# Called with the number of images done and their total.
OnProgress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""
