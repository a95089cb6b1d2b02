"""What the process settles before torch is loaded: how threads wait, and what becomes of freed memory.

Neither changes a bit of what is computed. Both belong to a process as a whole, which the command owns and a
library does not: who imports the package is left alone.
"""

import os
from collections.abc import MutableMapping

from finetune.training.compute.allocator import retain_freed_memory

# How often a thread looks for work before it sleeps, some microseconds in all.
SPINS = "1000"


def settle_process() -> None:
    """Settle both, where the user has not."""
    settle_waiting(os.environ)
    retain_freed_memory()


def settle_waiting(environment: MutableMapping[str, str]) -> None:
    """Have OpenMP's threads look for work for a moment, and then sleep.

    By default they spin for milliseconds. Where other programs want the cores, a run then takes many times as
    long, since each thread waits for one that is not running. Where they sleep at once, they wake too late
    for the next operation, and the steps of small networks, which are made of hundreds of short ones, take
    far longer on idle cores.
    """
    if "OMP_WAIT_POLICY" in environment:
        return
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    # GNU's alone, which torch brings along on Linux, and before the policy.
    environment.setdefault("GOMP_SPINCOUNT", SPINS)
