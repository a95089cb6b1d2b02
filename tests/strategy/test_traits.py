"""A trait that divides a set is reported for the minority, never for the majority."""

import re
from typing import Any

import pytest

from finetune.strategy.doctor.image_facts import ImageFacts
from finetune.strategy.doctor.traits import TRAITS, Trait, check_traits

PLAIN: dict[str, Any] = {"size": (100, 90), "is_grey": False, "has_alpha": False, "orientation": 1}
MARKED: dict[str, dict[str, Any]] = {
    "exif-rotated": {"orientation": 6},
    "small": {"size": (31, 30)},
    "elongated": {"size": (500, 100)},
    "grey": {"is_grey": True},
    "alpha": {"has_alpha": True},
}
every_trait = pytest.mark.parametrize("trait", TRAITS, ids=lambda trait: trait.kind)


def facts_of(kind: str, having: int, lacking: int) -> list[ImageFacts]:
    marked = [ImageFacts(f"has-{number}.jpg", **{**PLAIN, **MARKED[kind]}) for number in range(having)]
    return marked + [ImageFacts(f"not-{number}.jpg", **PLAIN) for number in range(lacking)]


def test_every_trait_is_tried() -> None:
    assert [trait.kind for trait in TRAITS] == list(MARKED)


@every_trait
@pytest.mark.parametrize(("having", "lacking"), [(1, 2), (1, 40), (10, 714), (3, 97), (20, 100)])
def test_a_small_minority_with_the_trait_is_listed(trait: Trait, having: int, lacking: int) -> None:
    (finding,) = check_traits(facts_of(trait.kind, having, lacking))
    assert finding.kind == trait.kind
    assert finding.files == tuple(f"has-{number}.jpg" for number in range(having))
    assert finding.message.startswith(f"{having} of {having + lacking} images, ")


@every_trait
@pytest.mark.parametrize(("having", "lacking"), [(714, 10), (2, 1), (40, 1), (97, 3), (100, 20)])
def test_a_small_minority_without_the_trait_is_listed(trait: Trait, having: int, lacking: int) -> None:
    (finding,) = check_traits(facts_of(trait.kind, having, lacking))
    assert finding.kind == trait.opposite
    assert f"{lacking} of {having + lacking} images, " in finding.message
    assert f"{having} of" not in finding.message
    # A problem of nearly all images is reported as theirs, without files.
    expected = () if trait.harm else tuple(f"not-{number}.jpg" for number in range(lacking))
    assert finding.files == expected
    assert trait.harm in finding.message


@every_trait
@pytest.mark.parametrize(("having", "lacking"), [(1, 1), (50, 50), (30, 70), (70, 30), (362, 362), (2, 3)])
def test_a_mixture_is_reported(trait: Trait, having: int, lacking: int) -> None:
    (finding,) = check_traits(facts_of(trait.kind, having, lacking))
    assert (finding.kind, finding.files) == (trait.kind, ())
    assert finding.message.startswith(f"a mixture: {min(having, lacking)} of {having + lacking} images, ")
    first, second = trait.having, trait.lacking
    # str.index raises where there is none.
    assert (finding.message.index(first) < finding.message.index(second)) is (having <= lacking)


@every_trait
@pytest.mark.parametrize("count", [1, 30])
def test_a_trait_of_all_images_is_reported_only_if_harmful(trait: Trait, count: int) -> None:
    assert check_traits(facts_of(trait.kind, 0, count)) == []
    found = check_traits(facts_of(trait.kind, count, 0))
    assert [each.message for each in found] == ([f"all images: {trait.harm}"] if trait.harm else [])


@every_trait
@pytest.mark.parametrize("count", [2, 3, 7, 50, 101])
def test_no_share_is_above_one_half(trait: Trait, count: int) -> None:
    for having in range(1, count):
        (finding,) = check_traits(facts_of(trait.kind, having, count - having))
        (percent,) = re.findall(r"([\d.]+) %", finding.message)
        assert float(percent) <= 50
