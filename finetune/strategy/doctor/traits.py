"""What some images of a set are and the others are not: the fewer of the two are the odd ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.strategy.doctor.findings import Finding
from finetune.strategy.doctor.image_facts import ImageFacts

# From this share on, the fewer are no oddity: the set is a mixture of both.
MIXTURE = 0.25
# Shorter side, in pixels, under which an image has little to show.
SMALL = 32
ELONGATED = 4.0


@dataclass(frozen=True)
class Trait:
    """Something that an image has or has not.

    Attributes:
        kind, opposite: of the finding where the fewer have it, and where the fewer do not.
        has: whether an image has it.
        having, lacking: what images that have it are, and those that do not: "grey", "in colour".
        few, exceptions: said of few images that have it, and of few that do not.
        note: added where images that have it are few, and of a mixture.
        harm: what is wrong with images that have it, however many they are; empty if nothing is.
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
        has=lambda look: look.orientation != 1,
        having="stored turned, as EXIF says",
        lacking="stored upright",
        few="stored turned, as EXIF says",
        exceptions="stored upright, among images that EXIF turns: have they lost their EXIF data?",
        note="; they are turned back when read",
    ),
    Trait(
        kind="small",
        opposite="small",
        has=lambda look: min(look.size) < SMALL,
        having=f"of fewer than {SMALL} pixels on the shorter side",
        lacking="larger",
        few=f"the shorter side has fewer than {SMALL} pixels",
        harm=f"the shorter side has fewer than {SMALL} pixels",
    ),
    Trait(
        kind="elongated",
        opposite="elongated",
        has=lambda look: max(look.size) > ELONGATED * min(look.size),
        having=f"longer than {ELONGATED:g} times their width",
        lacking="less long",
        few=f"longer than {ELONGATED:g} times their width",
        note=": a centre crop shows little of the long ones, `data.resize_mode: pad` all",
        harm=f"longer than {ELONGATED:g} times their width: a centre crop shows little of them, and "
        "`data.resize_mode: pad` all",
    ),
    Trait(
        kind="grey",
        opposite="colour",
        has=lambda look: look.is_grey,
        having="grey",
        lacking="in colour",
        few="grey, among images in colour",
        exceptions="in colour, among grey images",
    ),
    Trait(
        kind="alpha",
        opposite="opaque",
        has=lambda look: look.has_alpha,
        having="with transparency",
        lacking="opaque",
        few="with transparency, among opaque images",
        exceptions="opaque, among images with transparency, which is laid over white",
        note="; transparency is laid over white",
    ),
)


def check_oddities(looks: Sequence[ImageFacts]) -> list[Finding]:
    """A finding for each trait that divides the images, all of them readable; about the fewer of the two.

    Few are named. Of a mixture, and of a fault that nearly all images share, there is no file to name but
    those of the exceptions.
    """
    return [found for trait in TRAITS for found in _check(trait, looks)]


def _check(trait: Trait, looks: Sequence[ImageFacts]) -> list[Finding]:
    having = tuple(look.name for look in looks if trait.has(look))
    lacking = tuple(look.name for look in looks if not trait.has(look))
    if not having:
        return []
    if not lacking:
        return [Finding(trait.kind, (), f"all images: {trait.harm}")] if trait.harm else []
    fewer = min(having, lacking, key=len)
    share = f"{len(fewer):,} of {len(looks):,} images, {100 * len(fewer) / len(looks):.1f} %"
    if _is_mixture(len(fewer), len(looks)):
        odd, rest = trait.having, trait.lacking
        if fewer is lacking:
            odd, rest = rest, odd
        return [Finding(trait.kind, (), f"a mixture: {share}, are {odd}, the others {rest}{trait.note}")]
    if fewer is having:
        return [Finding(trait.kind, having, f"{share}: {trait.few}{trait.note}")]
    if trait.harm:
        return [Finding(trait.kind, (), f"nearly all images: {trait.harm}; not so {share}")]
    return [Finding(trait.opposite, lacking, f"{share}: {trait.exceptions}")]


def _is_mixture(fewer: int, total: int) -> bool:
    # One image beside two or more is the odd one, however small the set.
    return fewer >= MIXTURE * total and not (fewer == 1 and total > 2)
