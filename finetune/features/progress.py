"""How long work on images reports its progress, and how it can be stopped."""

from collections.abc import Callable

# Called with the number of images done and their total.
OnProgress = Callable[[int, int], None]
# Called often; may raise to stop the work.
Check = Callable[[], None]


def no_progress(done: int, total: int) -> None:
    """Report nothing."""
