"""The ``cache`` section: where computed features and decoded images are cached."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finetune.recipe.fields import Section

MOST_TB = 1_000_000
MOST_BYTES = MOST_TB * 1000**4
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])B")


def _check_size(value: str) -> str:
    if (nbytes := _nbytes(value)) is None:
        raise ValueError(f"must be a size such as 500MB or 4GB; it is {value!r}")
    if nbytes > MOST_BYTES:
        raise ValueError(f"must be at most {MOST_TB:,}TB; it is {value!r}")
    return value


def _nbytes(size: str) -> float | None:
    """Bytes, at 1000 bytes per KB; None if ``size`` is not a size."""
    found = SIZE.fullmatch(size)
    return None if found is None else float(found[1]) * 1000 ** (1 + "KMGT".index(found[2]))


class CacheSection(Section):
    """Where features of frozen layers and decoded images are cached. Caching never changes the result."""

    where: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="Where to cache the features of frozen layers. `auto` chooses disk or memory if reading "
        "is faster than computing; `off` does not cache.",
    )
    limit: Annotated[str, AfterValidator(_check_size)] = Field(
        "4GB",
        description="Largest size of a cache in memory, or of all caches on disk together: a number with KB, "
        "MB, GB or TB.",
    )
    decoded: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="Where to cache decoded train and val images. `auto` chooses disk or memory if more than "
        "one epoch reads the images and they fit the limit; `off` does not cache.",
    )

    @property
    def limit_bytes(self) -> int:
        """``limit`` in bytes."""
        nbytes = _nbytes(self.limit)
        assert nbytes is not None
        return int(nbytes)
