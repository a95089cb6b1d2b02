"""Traits that some images of a set have and others do not. The minority is reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.image_facts import ImageFacts

# From this share on, the set is a mixture, and the minority is not reported as an exception.
MIXTURE = 0.25
# An image is small if its shorter side has fewer pixels than this, and elongated if its aspect ratio exceeds
# ``ELONGATED``.
SMALL = 32
ELONGATED = 4.0


@dataclass(frozen=True)
class Trait:
    """A property of images that divides a set.

    Attributes:
        kind, opposite: the kind of the finding if the minority has the trait, and if the minority lacks it.
        has: whether an image has it.
        having, lacking: describe images with and without it, such as "grey" and "in colour".
        few, exceptions: describe a small minority with and without it.
        note: added to the message for a minority with the trait, and for a mixture.
        harm: the problem with images that have it, even if all do; empty if there is none.
    """

    kind: str
    opposite: str
    has: Callable[[ImageFacts], bool]
    having: str
    lacking: str
    few: str
    exceptions: str = ""
    note: str = ""
    harm: str = ""


TRAITS = (
    Trait(
        kind="exif-rotated",
        opposite="upright",
        has=lambda image: image.orientation != 1,
        having="stored rotated, with an EXIF orientation",
        lacking="stored upright",
        few="stored rotated, with an EXIF orientation",
        exceptions="stored upright, among rotated images: has their EXIF data been lost?",
        note="; they are rotated upright when read",
    ),
    Trait(
        kind="small",
        opposite="small",
        has=lambda image: min(image.size) < SMALL,
        having=f"smaller than {SMALL} pixels on the shorter side",
        lacking="larger",
        few=f"the shorter side has fewer than {SMALL} pixels",
        harm=f"the shorter side has fewer than {SMALL} pixels",
    ),
    Trait(
        kind="elongated",
        opposite="elongated",
        has=lambda image: max(image.size) > ELONGATED * min(image.size),
        having=f"more than {ELONGATED:g} times as long as wide",
        lacking="shorter",
        few=f"more than {ELONGATED:g} times as long as wide",
        note="; a centre crop shows little of long images, `data.resize_mode: pad` shows all",
        harm=f"more than {ELONGATED:g} times as long as wide; a centre crop shows little of them, "
        "`data.resize_mode: pad` shows all",
    ),
    Trait(
        kind="grey",
        opposite="colour",
        has=lambda image: image.is_grey,
        having="grey",
        lacking="in colour",
        few="grey, among images in colour",
        exceptions="in colour, among grey images",
    ),
    Trait(
        kind="alpha",
        opposite="opaque",
        has=lambda image: image.has_alpha,
        having="with transparency",
        lacking="opaque",
        few="with transparency, among opaque images",
        exceptions="opaque, among images with transparency, which is blended with white",
        note="; transparency is blended with white",
    ),
)


def check_traits(images: Sequence[ImageFacts]) -> list[Finding]:
    """Report each trait that divides the images, all of them readable; the finding is about the minority.

    The files of a small minority are listed. A mixture, and a problem of nearly all images, list no files.
    """
    return [found for trait in TRAITS for found in _check(trait, images)]


def _check(trait: Trait, images: Sequence[ImageFacts]) -> list[Finding]:
    having = tuple(image.name for image in images if trait.has(image))
    lacking = tuple(image.name for image in images if not trait.has(image))
    if not having:
        return []
    if not lacking:
        return [Finding(trait.kind, (), f"all images: {trait.harm}")] if trait.harm else []
    fewer = min(having, lacking, key=len)
    share = f"{len(fewer):,} of {len(images):,} images, {100 * len(fewer) / len(images):.1f} %"
    if _is_mixture(len(fewer), len(images)):
        odd, rest = trait.having, trait.lacking
        if fewer is lacking:
            odd, rest = rest, odd
        return [Finding(trait.kind, (), f"a mixture: {share}, are {odd}, the others {rest}{trait.note}")]
    if fewer is having:
        return [Finding(trait.kind, having, f"{share}: {trait.few}{trait.note}")]
    if trait.harm:
        return [Finding(trait.kind, (), f"nearly all images: {trait.harm}; the exceptions are {share}")]
    return [Finding(trait.opposite, lacking, f"{share}: {trait.exceptions}")]


def _is_mixture(fewer: int, total: int) -> bool:
    # A single image beside two or more is an exception, however small the set is.
    return fewer >= MIXTURE * total and not (fewer == 1 and total > 2)
