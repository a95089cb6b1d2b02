"""Configure the process before torch is loaded: how threads wait, and how freed memory is handled.

Neither changes a bit of any result. Both apply to the process as a whole, so the command sets them and the
Python API does not.
"""

import os
from collections.abc import MutableMapping

from finetune.training.compute.allocator import retain_freed_memory

# How often a thread checks for work before it sleeps; takes a few microseconds in all.
SPINS = "1000"


def configure_process() -> None:
    """Configure both, unless the user has."""
    configure_waiting(os.environ)
    retain_freed_memory()


def configure_waiting(environment: MutableMapping[str, str]) -> None:
    """Make OpenMP's threads check for work for a moment, and then sleep.

    By default they spin for milliseconds. If other programs need the cores, a run then takes many times as
    long, because each thread waits for one that is not running. If they slept at once, they would wake too
    late for the next operation: on idle cores, small networks with hundreds of short operations per step
    would take far longer.
    """
    if "OMP_WAIT_POLICY" in environment:
        return
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    # Read by GNU's OpenMP only, which torch ships on Linux.
    environment.setdefault("GOMP_SPINCOUNT", SPINS)
