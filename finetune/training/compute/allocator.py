"""Tune glibc's allocator for training on the CPU, so that freed memory is reused by the next step.

By default glibc returns large blocks to the system, which clears every page when it hands them out again. A
network frees and allocates its activations in every step, so this takes a good part of each step. Results do
not depend on it. Without glibc nothing is changed. This module does not import torch.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

# From glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Never shrink the heap.
NEVER = -1
# Blocks from this size on are returned at once.
RETURNED_FROM = 1 << 30
# In fp32 the blocks of a step are twice as large. Retaining the largest too would take much more memory than
# the same loop without tuning.
RETURNED_FROM_IN_FP32 = 64 << 20
# Environment variables by which users tune the allocator themselves.
USERS_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")

retained = less_retained = False


def retain_freed_memory() -> bool:
    """Retain freed memory for the next step, unless the user tunes the allocator.

    Affects the whole process, so only the owner of the process may call it. Returns whether it is retained.
    """
    global retained
    if not any(name in os.environ for name in USERS_SETTINGS):
        retained = _set(M_MMAP_THRESHOLD, RETURNED_FROM) and _set(M_TRIM_THRESHOLD, NEVER)
    return retained


def return_large_blocks() -> None:
    """Return the largest freed blocks even if freed memory is retained: for training in fp32."""
    global less_retained
    if retained:
        less_retained = _set(M_MMAP_THRESHOLD, RETURNED_FROM_IN_FP32)


@contextlib.contextmanager
def restored_afterwards() -> Iterator[None]:
    """Undo, at the end, what :func:`return_large_blocks` changed within."""
    global less_retained
    before = less_retained
    try:
        yield
    finally:
        if less_retained != before:
            less_retained = before
            _set(M_MMAP_THRESHOLD, RETURNED_FROM)


def _set(parameter: int, value: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(parameter, value))
