"""What the process settles before torch is loaded: how threads wait, and what becomes of freed memory.

Neither changes a bit of what is computed. Both belong to a process as a whole, which the command owns and a
library does not: who imports the package is left alone.
"""

import ctypes
import os
from collections.abc import MutableMapping

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Larger blocks go back at once, smaller ones (of the top of the heap, as glibc says) never.
RETURNED_FROM, NEVER = 1 << 30, -1
# By which users and their systems settle it themselves.
SETTLED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")
# How often a thread looks for work before it sleeps, some microseconds in all.
SPINS = "1000"


def settle_process() -> None:
    """Settle both, where the user has not."""
    settle_waiting(os.environ)
    keep_freed_memory()


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


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next step; returns whether it does. Elsewhere nothing is done.

    By default large blocks go back to the system, which clears each of their pages when they are taken again.
    On the CPU a network does that with its activations in every step, and a good part of a step goes into it.
    """
    if any(name in os.environ for name in SETTLED_BY):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(M_MMAP_THRESHOLD, RETURNED_FROM) and mallopt(M_TRIM_THRESHOLD, NEVER))
