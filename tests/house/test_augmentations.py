"""The table of augmentations has every key of ``train.augment``, and the schema knows which change images."""

from typing import Any

import numpy as np
import pytest
from pydantic import Field, create_model

from finetune.data.batches.mixing import mixer_for
from finetune.data.sources.named.drawn import draw_source
from finetune.image.augmentations import AUGMENTATIONS
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.recipe.augment_section import NOT_AUGMENTING, AugmentSection, ColorJitter, RandAugment

PREPROCESSING = Preprocessing(16, 18, "shorter", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGE = draw_source(2, 4, 24).splits["train"].open(0)
# A value for each key that turns an augmentation on.
ON: dict[str, Any] = {
    "crop": "random_resized",
    "flip": True,
    "vertical_flip": True,
    "rotation": 30.0,
    "translate": 0.4,
    "color_jitter": ColorJitter(brightness=0.9),
    "randaugment": RandAugment(),
    "trivial_augment": True,
    "random_erasing": 1.0,
}
PARAMETERS: dict[str, Any] = {"scale": (0.5, 1.0), "ratio": (1.0, 1.0)}
MIXING: dict[str, Any] = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}


def views(augment: AugmentSection) -> set[bytes]:
    transform = TrainTransform(augment, PREPROCESSING)
    base = transform.base(IMAGE)
    drawn = (transform.view(base, key) for key in range(12))
    return {np.ascontiguousarray(view.pixels).tobytes() + repr(view.erased).encode() for view in drawn}


def test_every_field_of_the_schema_has_its_entry() -> None:
    assert [key for each in AUGMENTATIONS for key in each.keys] == list(ON)
    assert {key for each in AUGMENTATIONS for key in each.parameters} == set(PARAMETERS)
    assert {*ON, *PARAMETERS, *MIXING, "views"} == set(AugmentSection.model_fields)
    assert {*PARAMETERS, *MIXING, "views"} == set(NOT_AUGMENTING)


@pytest.mark.parametrize("key", ON)
def test_an_augmentation_that_is_on_changes_images(key: str) -> None:
    augment = AugmentSection(**{key: ON[key]})
    (chosen,) = (each for each in AUGMENTATIONS if each.is_on(augment))
    assert key in chosen.keys
    assert augment.changes_images
    assert len(views(augment)) > 1


def test_parameters_and_mixing_alone_change_no_image() -> None:
    for augment in (AugmentSection(), AugmentSection(**PARAMETERS, **MIXING, views=4)):
        assert not augment.changes_images
        assert not any(each.is_on(augment) for each in AUGMENTATIONS)
        assert len(views(augment)) == 1


@pytest.mark.parametrize("key", MIXING)
def test_mixing_is_on_if_the_recipe_turns_it_on(key: str) -> None:
    assert mixer_for(AugmentSection(), 3) is None
    assert mixer_for(AugmentSection(**{key: MIXING[key]}), 3) is not None


@pytest.mark.parametrize(
    ("kind", "off", "on"),
    [
        (float, 0.0, 0.3),
        (bool, False, True),
        (str, "none", "strong"),
        (RandAugment | None, None, RandAugment()),
    ],
)
def test_a_new_field_changes_images_without_being_listed(kind: Any, off: Any, on: Any) -> None:
    section = create_model("Section", __base__=AugmentSection, solarize=(kind, Field(off)))
    assert not section().changes_images
    assert section.model_validate({"solarize": on}).changes_images
