"""The names a recipe may use for backbones and known data sets, and what is known of each backbone.

The table is generated from torchvision's own metadata by ``scripts/backbones-table`` and read from
``backbones.json``, so that an unknown name is answered without importing torch.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from finetune.errors import UserError

KNOWN_SETS: tuple[str, ...] = ("digits", "hotdog")
# A set too, of drawn images, which shows that a recipe runs (`--smoke`) and which nobody is offered.
DRAWN = "drawn"

# The source network where none is named, in every command and in the starter recipe. Its weights come as a
# Python package: whether there is a network, and what it fetched before, has no say in what is trained.
DEFAULT_BACKBONE = "efficientnet_lite0"

TABLE = Path(__file__).with_name("backbones.json")


@dataclass(frozen=True)
class WeightsInfo:
    """One set of pretrained weights.

    ``top1`` and ``top5`` are fractions on ImageNet-1K (None: not published), ``gflops`` is the cost of one
    image of ``image_size`` pixels, ``resize`` the size before the centre crop, ``megabytes`` the size of
    the file. ``default`` marks the set that ``weights: default`` stands for.
    """

    name: str
    top1: float | None
    top5: float | None
    gflops: float | None
    megabytes: float
    image_size: int
    resize: int
    default: bool


@dataclass(frozen=True)
class BackboneInfo:
    """One backbone.

    ``parameters`` counts all of them with the source's 1000 classes, ``depth`` the layers that
    ``finetune layers`` numbers before the head; ``gflops``, ``image_size`` and ``resize`` are those of the
    default weights.
    """

    name: str
    family: str
    parameters: int
    depth: int
    gflops: float | None
    image_size: int
    resize: int
    weights: tuple[WeightsInfo, ...]

    @property
    def default_weights(self) -> WeightsInfo:
        """What ``weights: default`` stands for."""
        return next(weights for weights in self.weights if weights.default)

    @classmethod
    def from_dict(cls, name: str, value: dict[str, Any]) -> "BackboneInfo":
        """Read one entry of ``backbones.json``."""
        weights = tuple(WeightsInfo(**each) for each in value["weights"])
        default = next(each for each in weights if each.default)
        return cls(
            name=name,
            family=value["family"],
            parameters=value["parameters"],
            depth=value["depth"],
            gflops=default.gflops,
            image_size=default.image_size,
            resize=default.resize,
            weights=weights,
        )


@cache
def backbones() -> dict[str, BackboneInfo]:
    """All backbones by name, in alphabetical order. Read-only: the same object is handed to everyone."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: BackboneInfo.from_dict(name, value) for name, value in table.items()}


def split_name(name: str) -> tuple[str, str]:
    """Split a backbone's name into its library's prefix ("" for none) and the library's own name for it."""
    prefix, _, own = name.partition(":")
    return (prefix, own) if own and prefix.isidentifier() else ("", name)


def is_listed(name: str) -> bool:
    """Whether a backbone belongs to the table. Names with a prefix are known to their library alone."""
    return split_name(name)[0] == ""


def check_backbone(name: str) -> None:
    """Refuse an unknown name, as far as that is possible without importing the name's library.

    Raises:
        UserError: the table has no such backbone.
    """
    if is_listed(name):
        backbone(name)


def backbone(name: str) -> BackboneInfo:
    """Look a backbone up in the table.

    Raises:
        UserError: an unknown name; the message suggests the nearest one.
    """
    known = backbones()
    if name not in known:
        raise UserError(
            f"unknown backbone {name!r}.{suggest(name, known)} `finetune backbones` lists all {len(known)}."
        )
    return known[name]


def suggest(word: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known word nearest to this one, or ``""`` where none is near."""
    by_folded = {_fold(each): each for each in known}
    near = get_close_matches(_fold(word), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
