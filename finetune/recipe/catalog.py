"""Names of backbones, their libraries and known data sets, and the facts about each backbone.

``scripts/backbones-table`` generates ``backbones.json`` from torchvision's metadata. This module does not
import torch, so an unknown name is reported at once.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.recipe.document import MAX_SHOWN, show_value

KNOWN_SETS: tuple[str, ...] = ("digits", "hotdog")
# A set of drawn images for `--smoke`, which checks that a recipe runs. No message lists it.
DRAWN = "drawn"

# The default backbone of every command and of the starter recipe. Its weights come as a Python package, so
# the result does not depend on a network connection or on earlier downloads.
DEFAULT_BACKBONE = "efficientnet_lite0"

# The backbone libraries by the prefix of their backbones' names. ``backbones.json`` lists the backbones
# without a prefix. finetune.model.backbones imports the classes. Of several libraries with the same prefix,
# the first one that has a name provides it.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "": (
        "finetune.model.libraries.packaged:PackagedLibrary",
        "finetune.model.libraries.torchvision_library:TorchvisionLibrary",
    ),
    "timm": ("finetune.model.libraries.timm_library:TimmLibrary",),
}

TABLE = Path(__file__).with_name("backbones.json")


@dataclass(frozen=True)
class WeightsInfo:
    """One set of pretrained weights.

    Attributes:
        top1, top5: accuracy on ImageNet-1K as a fraction; None: not published.
        gflops: cost of one image of ``image_size`` pixels.
        megabytes: size of the file.
        image_size, resize: side of the images in pixels, after and before the centre crop.
        default: whether ``weights: default`` means this set.
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

    Attributes:
        parameters: number of parameters with the source's 1000 classes.
        depth: number of layers before the head, as ``finetune layers`` counts them.
    """

    name: str
    family: str
    parameters: int
    depth: int
    weights: tuple[WeightsInfo, ...]

    @property
    def default_weights(self) -> WeightsInfo:
        """The set that ``weights: default`` means."""
        return next(weights for weights in self.weights if weights.default)

    @classmethod
    def from_dict(cls, name: str, value: dict[str, Any]) -> "BackboneInfo":
        """Read one entry of ``backbones.json``."""
        weights = tuple(WeightsInfo(**each) for each in value["weights"])
        return cls(name, value["family"], value["parameters"], value["depth"], weights)


@cache
def backbones() -> dict[str, BackboneInfo]:
    """All listed backbones by name, in alphabetical order. Callers share this object: do not change it."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: BackboneInfo.from_dict(name, value) for name, value in table.items()}


def split_name(name: str) -> tuple[str, str]:
    """Split a backbone's name into its library's prefix ("" for none) and the library's own name for it."""
    prefix, _, own = name.partition(":")
    return (prefix, own) if prefix and own and prefix in LIBRARIES else ("", name)


def is_listed(name: str) -> bool:
    """Whether a backbone belongs to the table. Only its library knows a name with a prefix."""
    return split_name(name)[0] == ""


def check_backbone(name: str) -> None:
    """Refuse an unknown name, as far as that is possible without importing the name's library.

    Raises:
        UserError: an unknown library's prefix, or the table has no such backbone.
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
        own = name.partition(":")[2]
        near = suggest(name, [*known, *(f"{prefix}:{own}" for prefix in LIBRARIES if prefix and own)])
        hint = f"{near} `finetune backbones` lists all {len(known)}."
        raise UserError(f"unknown backbone {show_value(name)}.{hint}")
    return known[name]


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word most similar to this one, or ``""``."""
    if len(word) > MAX_SHOWN:
        return ""  # comparing it would take too long
    by_folded = {_fold(each): each for each in known}
    near = get_close_matches(_fold(word), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
