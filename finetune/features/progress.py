"""How long work on images reports its progress."""

from collections.abc import Callable

# Called with the number of images done and their total.
OnProgress = Callable[[int, int], None]
# The same for work in several stages, with the name of the stage, such as "at several depths", first.
OnStage = Callable[[str, int, int], None]


def no_progress(*_: object) -> None:
    """Report nothing."""
