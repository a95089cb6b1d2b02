"""Find a batch size that fits after a step ran out of memory."""

import gc
from collections.abc import Callable

import torch

from finetune.errors import is_out_of_memory


def largest_that_fits(size: int, attempt: Callable[[int], None]) -> int | None:
    """Halve ``size`` until ``attempt`` succeeds and return that size; None if none fits.

    Not below 2, which BatchNorm needs. ``attempt`` must release its tensors when it fails.
    """
    while size > 2:
        size = max(size // 2, 2)
        # Free the memory of the attempt before.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size
    return None
