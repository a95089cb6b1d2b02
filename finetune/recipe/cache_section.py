"""The ``cache`` section: where computed features and decoded images are cached."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finetune.recipe.fields import Section

MOST_TB = 1_000_000


def _check_size(value: str) -> str:
    if _bytes_of(value) > MOST_TB * 1000**4:
        raise ValueError(f"must be at most {MOST_TB:,}TB; it is {value!r}")
    return value


def _bytes_of(size: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B", size)
    if found is None:
        raise ValueError(f"must be a size such as 500MB or 4GB; it is {size!r}")
    return float(found[1]) * 1000.0 ** (1 + "KMGT".index(found[2]))


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
        """``limit`` in bytes, at 1000 bytes per KB."""
        return int(_bytes_of(self.limit))
