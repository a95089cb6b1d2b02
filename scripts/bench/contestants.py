"""Who takes part, in which work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

# How much of the network trains; the first k are half of the body's layers.
WORKS = ("everything", "first k", "head")
TOOLS = ("finetune", "plain", "timm", "fastai", "ceiling")
# Those that are packages of their own, and may not be there.
PACKAGES = ("timm", "fastai")
# What every loop does to its images, unless the row says otherwise.
AUGMENTED = {"augment": {"crop": "random_resized", "flip": True}}


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    ``tool`` is one of :data:`TOOLS`, ``work`` one of :data:`WORKS`. ``workers``: loader processes; finetune
    settles its own. ``mixed``: in the mixed precision of finetune's rule, where the loop can do both.
    Finetune's alone: ``train`` and ``cache``, keys of these sections of its recipe; ``advised``: it is given
    the images and no recipe, and finds out itself what to train.
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
        """The package that it takes and that is not installed."""
        return self.tool if self.tool in PACKAGES and find_spec(self.tool) is None else None


def _of_work(work: str, suffix: str) -> tuple[Contestant, ...]:
    """What stands side by side for one work, in the order in which they take their turns."""
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
        other = Contestant(f"finetune{suffix}-kept", "finetune, one look an image", "finetune", work)
    return (
        *loops,
        Contestant(f"finetune{suffix}", "finetune", "finetune", work, train=AUGMENTED),
        other,
        Contestant(f"ceiling{suffix}", "ceiling: tensors in memory", "ceiling", work),
    )


SPEED = (*_of_work("everything", ""), *_of_work("first k", "-first-k"), *_of_work("head", "-head"))

# To a given accuracy: the first sets it.
ACCURACY = (
    Contestant("plain", "plain loop, everything", "plain", "everything"),
    Contestant("finetune-everything", "finetune, everything", "finetune", "everything", train=AUGMENTED),
    Contestant("finetune-head", "finetune, head", "finetune", "head"),
    Contestant("finetune-solved", "finetune, head solved", "finetune", "head", train={"optimizer": "lbfgs"}),
    Contestant(
        "finetune-advised", "finetune, given the images alone", "finetune", "everything", advised=True
    ),
)
