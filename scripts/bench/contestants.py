"""The contestants, and the parts of the network that they train."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

# How much of the network trains. `first k` freezes half of the body's layers.
WORKS = ("everything", "first k", "head")
TOOLS = ("finetune", "plain", "timm", "fastai", "ceiling")
# Tools that are optional packages.
PACKAGES = ("timm", "fastai")
# The augmentation of every loop, unless its row says otherwise.
AUGMENTED = {"augment": {"crop": "random_resized", "flip": True}}


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    ``tool`` is one of :data:`TOOLS`, ``work`` one of :data:`WORKS`. ``workers``: loader processes; finetune
    chooses its own number. ``mixed``: mixed precision by finetune's rule, if the loop supports it. For
    finetune only: ``train`` and ``cache`` are keys of these sections of its recipe; ``advised`` gives it
    the images without a recipe.
    """

    name: str
    title: str
    tool: str
    work: str
    workers: int = 0
    mixed: bool = True
    train: Mapping[str, Any] = field(default_factory=dict)
    cache: Mapping[str, Any] = field(default_factory=dict)
    advised: bool = False

    @property
    def missing(self) -> str | None:
        """The required package, if it is not installed."""
        return self.tool if self.tool in PACKAGES and find_spec(self.tool) is None else None


def _of_work(work: str, suffix: str) -> tuple[Contestant, ...]:
    """The contestants of one work, in the order of their turns."""
    others = {"plain": "plain loop"}
    if work == "everything":
        others |= {package: package for package in PACKAGES}
    loops = [
        Contestant(f"{tool}{suffix}-w{workers}", f"{title}, {words}", tool, work, workers)
        for tool, title in others.items()
        for workers, words in ((0, "no workers"), (2, "2 workers"))
    ]
    if work == "everything":
        loops.append(Contestant("timm-fp32", "timm, no workers, fp32", "timm", work, mixed=False))
        title, undecoded = "finetune, decoding anew", {"decoded": "off"}
        other = Contestant("finetune-undecoded", title, "finetune", work, train=AUGMENTED, cache=undecoded)
    else:
        other = Contestant(f"finetune{suffix}-kept", "finetune, one view per image", "finetune", work)
    return (
        *loops,
        Contestant(f"finetune{suffix}", "finetune", "finetune", work, train=AUGMENTED),
        other,
        Contestant(f"ceiling{suffix}", "ceiling: tensors in memory", "ceiling", work),
    )


SPEED = (*_of_work("everything", ""), *_of_work("first k", "-first-k"), *_of_work("head", "-head"))

# Time to an accuracy, which the first contestant sets.
ACCURACY = (
    Contestant("plain", "plain loop, everything", "plain", "everything"),
    Contestant("finetune-everything", "finetune, everything", "finetune", "everything", train=AUGMENTED),
    Contestant("finetune-head", "finetune, head", "finetune", "head"),
    Contestant("finetune-solved", "finetune, head solved", "finetune", "head", train={"optimizer": "lbfgs"}),
    Contestant(
        "finetune-advised", "finetune, given the images alone", "finetune", "everything", advised=True
    ),
)
