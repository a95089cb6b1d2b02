"""Out of memory, answered with a batch size that was tried."""

import gc
from collections.abc import Callable

import torch

from finetune.errors import is_out_of_memory


def largest_that_fits(size: int, attempt: Callable[[int], None]) -> int | None:
    """Half of ``size``, or the half of that, and so on: the first that ``attempt`` takes; None for none.

    Not below 2, which BatchNorm needs. ``attempt`` must let go of all it held when it fails.
    """
    while size > 2:
        size = max(size // 2, 2)
        release()
        if _works(size, attempt):
            return size
    return None


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _works(size: int, attempt: Callable[[int], None]) -> bool:
    try:
        attempt(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
