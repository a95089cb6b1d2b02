"""What is known of images and a source network before any training."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from finetune.image.preprocessing import ResizeMode


@dataclass(frozen=True)
class Probed:
    """A linear classifier on the features after a layer: its cross-validated accuracy on ``n`` images."""

    layer: int
    name: str
    top1: float
    n: int

    @property
    def error(self) -> float:
        """The standard error of ``top1``; that of a coin at its ends, where the sample shows none."""
        return math.sqrt(max(self.top1 * (1 - self.top1), 0.25 / self.n) / self.n)


@dataclass(frozen=True)
class Tried:
    """What an augmentation does to the features, on images that were not trained on.

    Attributes:
        kept: share of images that a classifier trained without it puts into the same class with it.
        gain: what training on copies made by it as well adds to the accuracy on images as they are.
        error: the standard error of ``gain``, from the images on which the two differ.
        told: how often a classifier tells copies from originals, 0.5 by chance; asked of mirroring alone,
            since other copies have edges that give them away.
        n: how many images were copied; the most that are, where what was written down does not say.
    """

    kept: float
    gain: float
    error: float
    told: float | None
    n: int = 256


@dataclass(frozen=True)
class Sized:
    """What one way of bringing images to size (``data.resize_mode``) is worth on frozen features.

    Attributes:
        top1: the cross-validated accuracy of a linear classifier.
        gain: by how much that is more than with the weights' own way, on the same images.
        error: the standard error of ``gain``, from the images on which the two differ.
        n: of how many images; the most that are, where what was written down does not say.
    """

    top1: float
    gain: float
    error: float
    n: int = 256


@dataclass(frozen=True)
class Shapes:
    """How far images are from square, and how they are best brought to size.

    Attributes:
        n: so many images' sizes were read.
        ratio: the median of longer to shorter side.
        long: the share whose longer side is about one and a half times the shorter, or more.
        shown: the mean share of an image's area that the network gets to see in the ``own`` way.
        own: the way (``data.resize_mode``) that the weights or the recipe say.
        sized: by way; empty where none was tried.
    """

    n: int
    ratio: float
    long: float
    shown: float
    own: ResizeMode
    sized: dict[ResizeMode, Sized] = field(default_factory=dict)

    @property
    def best(self) -> ResizeMode:
        """The way with the largest gain of those beyond twice their standard error; else their own.

        Of two that are equal, ``pad``, which changes no proportions.
        """
        clear = {way: each.gain for way, each in self.sized.items() if each.gain > 2 * each.error}
        return max(clear, key=lambda way: (clear[way], way == "pad"), default=self.own)


@dataclass(frozen=True)
class Seconds:
    """Measured on this machine, of one image: to read it, one forward pass, one training step of all."""

    read: float
    forward: float
    step: float


@dataclass(frozen=True)
class Facts:
    """All that the rule knows.

    Attributes:
        source: what the images are called.
        classes, train, val, test: how many there are; ``test`` is 0 where there is no test split.
        fewest, most: training images of the smallest and the largest class.
        backbone, weights: the source network, and where its weights came from.
        image_size: in pixels.
        depths: probes at rising depths, all on one sample; the last is after the last layer.
        probe: after the last layer, on the training images.
        shares: of the network's operations, those up to each layer, 0 to 1.
        shift: of the BatchNorm statistics (:class:`finetune.strategy.advice.similarity.Shift`); None without.
        confidence, told_apart: of the source's own predictions, as described there; None without a source
            classifier.
        tried: by name, what augmentations do; empty where none was measured, since nothing is tuned.
        seconds: measured.
        computed, cached: training images that went through the network now, and that the cache had.
        shapes: how long images are; None where no size could be read.
        notes: what a training says of how the images were read.
    """

    source: str
    classes: int
    train: int
    val: int
    test: int
    fewest: int
    most: int
    backbone: str
    weights: str
    image_size: int
    depths: tuple[Probed, ...]
    probe: Probed
    shares: tuple[float, ...]
    shift: float | None
    confidence: float | None
    told_apart: float | None
    tried: dict[str, Tried]
    seconds: Seconds
    computed: int
    cached: int
    shapes: Shapes | None = None
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """Of the body."""
        return len(self.shares)

    @property
    def per_class(self) -> float:
        """Training images a class, on average."""
        return self.train / self.classes

    @property
    def deeper(self) -> float:
        """What the last layers add: the last probe's accuracy less the best of the shallower ones."""
        return self.depths[-1].top1 - max((each.top1 for each in self.depths[:-1]), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """Read :meth:`to_dict` back, from JSON too."""
        nested = {
            "depths": tuple(Probed(**each) for each in entries["depths"]),
            "probe": Probed(**entries["probe"]),
            "shares": tuple(entries["shares"]),
            "tried": {name: Tried(**each) for name, each in entries["tried"].items()},
            "seconds": Seconds(**entries["seconds"]),
            "notes": tuple(entries.get("notes", ())),
        }
        if (shapes := entries.get("shapes")) is not None:
            sized = {way: Sized(**each) for way, each in shapes["sized"].items()}
            nested["shapes"] = Shapes(**{**shapes, "sized": sized})
        return cls(**{**entries, **nested})
