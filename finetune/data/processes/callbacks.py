"""The functions that work in processes calls while it runs."""

from collections.abc import Callable

# A worker process calls it now and then to signal that it makes progress.
Heartbeat = Callable[[], None]
# Called while this process waits. It may end the wait by raising.
Check = Callable[[], None]


def do_nothing() -> None:
    """Do nothing: the default of a callback."""
