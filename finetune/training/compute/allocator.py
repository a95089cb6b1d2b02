"""What becomes of memory that a step has freed: glibc's allocator, settled for networks on the CPU.

By default large blocks go back to the system, which clears each of their pages when they are taken again. A
network does that with its activations in every step, and a good part of a step goes into it. No bit of what
is computed depends on it. Elsewhere than under glibc nothing is done. Torch-free.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# The heap itself is never made smaller.
NEVER = -1
# Blocks from this size on go back at once.
RETURNED_FROM = 1 << 30
# In fp32 a training step's blocks are twice as large. Where the largest are kept too, it takes a good part
# more memory than the same loop without.
RETURNED_FROM_IN_FP32 = 64 << 20
# By which users and their systems settle it themselves.
SETTLED_BY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")

_kept = _less = False


def retain_freed_memory() -> bool:
    """Have freed memory kept for the next step, unless the user has settled that; returns whether it is.

    For a process as a whole, and so for who owns it to call.
    """
    global _kept
    if not any(name in os.environ for name in SETTLED_BY):
        _kept = _set(M_MMAP_THRESHOLD, RETURNED_FROM) and _set(M_TRIM_THRESHOLD, NEVER)
    return _kept


def return_large_blocks() -> None:
    """Where freed memory is kept, give the largest blocks back all the same: for training in fp32."""
    global _less
    if _kept:
        _less = _set(M_MMAP_THRESHOLD, RETURNED_FROM_IN_FP32)


@contextlib.contextmanager
def restored_afterwards() -> Iterator[None]:
    """Afterwards as much is kept as before, whatever :func:`return_large_blocks` was called for within."""
    global _less
    before = _less
    try:
        yield
    finally:
        if _less != before:
            _less = before
            _set(M_MMAP_THRESHOLD, RETURNED_FROM)


def _set(parameter: int, value: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(parameter, value))
