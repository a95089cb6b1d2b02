"""Which images of a split have the same content."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.data.dataset import Split
from finetune.errors import BadImageError


def same_content(images: Split, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each of the images at ``indices`` the row of the first one with the same content: (N,).

    Files count as the same if all their bytes are. An image that cannot be read is like no other.
    """
    seen: dict[bytes, int] = {}
    found = []
    for row, index in enumerate(indices):
        try:
            content = images.digest(int(index))
        except BadImageError:
            content = str(row).encode()
        found.append(seen.setdefault(content, row))
    return np.asarray(found, dtype=np.int64)
