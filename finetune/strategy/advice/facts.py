"""The facts that advice is based on: everything known before any training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from finetune.image.preprocessing import ResizeMode


@dataclass(frozen=True)
class Probed:
    """The cross-validated accuracy of a linear classifier on the features after a layer, for ``n`` images."""

    layer: int
    name: str
    top1: float
    n: int


@dataclass(frozen=True)
class Tried:
    """The effect of an augmentation on features of held-out images.

    Attributes:
        kept: the share of images whose predicted class does not change with the augmentation.
        gain: the gain in accuracy on plain images from training on augmented copies as well.
        error: the standard error of ``gain``.
        told: the accuracy of a classifier that separates copies from originals, 0.5 by chance. Measured for
            mirroring only, because the edges of other copies give them away.
        n: the number of images copied.
    """

    kept: float
    gain: float
    error: float
    told: float | None
    n: int = 256


@dataclass(frozen=True)
class Sized:
    """The value of one way to resize images (``data.resize_mode``), measured on frozen features.

    Attributes:
        top1: the cross-validated accuracy of a linear classifier.
        gain: its gain over the weights' own way, on the same images.
        error: the standard error of ``gain``.
        n: the number of images.
    """

    top1: float
    gain: float
    error: float
    n: int = 256


@dataclass(frozen=True)
class Shapes:
    """The aspect ratios of the images, and the best way to resize them.

    Attributes:
        n: the number of images whose size was read.
        ratio: the median ratio of the longer to the shorter side.
        long: the share of images whose longer side is about one and a half times the shorter, or more.
        shown: the mean share of an image's area that the network sees with ``own``.
        own: the ``data.resize_mode`` of the weights or the recipe.
        sized: the value of each way; empty if none was measured.
    """

    n: int
    ratio: float
    long: float
    shown: float
    own: ResizeMode
    sized: dict[ResizeMode, Sized] = field(default_factory=dict)

    @property
    def best(self) -> ResizeMode:
        """The way with the largest gain above twice its standard error; ``own`` if there is none.

        If two gains are equal, ``pad`` is preferred, because it keeps the proportions.
        """
        clear = {way: each.gain for way, each in self.sized.items() if each.gain > 2 * each.error}
        return max(clear, key=lambda way: (clear[way], way == "pad"), default=self.own)


@dataclass(frozen=True)
class Corrected:
    """The value of one correction for uneven classes, measured on frozen features.

    Attributes:
        balanced_accuracy, top1: of a cross-validated linear classifier.
        gain: its gain in balanced accuracy over no correction, on the same images.
        error: the standard error of ``gain``.
    """

    balanced_accuracy: float
    top1: float
    gain: float
    error: float


# No correction, `class_weights: balanced`, or `logit_adjust`.
Correction = Literal["none", "class_weights", "logit_adjust"]
# A correction is chosen if its gain is above this many standard errors.
CLEAR = 1.0


@dataclass(frozen=True)
class Uneven:
    """The corrections for classes of uneven size.

    Attributes:
        n: the number of training images that they were measured on.
        ratio: the images of the largest class over those of the smallest.
        tried: the value of each correction, ``none`` included.
    """

    n: int
    ratio: float
    tried: dict[Correction, Corrected]

    @property
    def best(self) -> Correction:
        """The correction with the largest gain above ``CLEAR`` standard errors; ``none`` if there is none."""
        clear = {name: each.gain for name, each in self.tried.items() if each.gain > CLEAR * each.error}
        return max(clear, key=lambda name: clear[name], default="none")


@dataclass(frozen=True)
class Seconds:
    """Times per image, measured on this machine: reading, a forward pass, a training step of all layers."""

    read: float
    forward: float
    step: float


@dataclass(frozen=True)
class Facts:
    """The input of the rule.

    Attributes:
        source: the name of the images.
        classes, train, val, test: counts; ``test`` is 0 without a test split.
        fewest, most: training images of the smallest and the largest class.
        backbone, weights: the source network, and the origin of its weights.
        image_size: in pixels.
        depths: probes at increasing depths, all on one sample; the last is after the last layer.
        probe: the probe after the last layer, on the training images.
        shares: the share of the network's operations up to each layer, 0 to 1.
        shift: of the BatchNorm statistics; None without BatchNorm. See :mod:`.similarity`.
        confidence, told_apart: of the source classifier; None without one. See :mod:`.similarity`.
        tried: the effect of each augmentation; empty if nothing is tuned.
        seconds: times per image.
        computed, cached: training images whose features were computed now, or were in the cache.
        shapes: aspect ratios; None if no size could be read.
        uneven: the corrections for uneven classes; None if the classes are even.
        notes: remarks on how the images were read, which training prints as well.
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
    uneven: Uneven | None = None
    notes: tuple[str, ...] = ()

    @property
    def per_class(self) -> float:
        """The mean number of training images per class."""
        return self.train / self.classes

    @property
    def deeper(self) -> float:
        """The accuracy that the last layers add: the last probe minus the best of the shallower ones."""
        return self.depths[-1].top1 - max((each.top1 for each in self.depths[:-1]), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Self:
        """Convert the result of :meth:`to_dict` back, also from JSON."""
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
        if (uneven := entries.get("uneven")) is not None:
            tried = {name: Corrected(**each) for name, each in uneven["tried"].items()}
            nested["uneven"] = Uneven(**{**uneven, "tried": tried})
        return cls(**{**entries, **nested})
