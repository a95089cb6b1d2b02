"""The ``train.augment`` section: the random changes to training images."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from finetune.recipe.fields import ConflictError, Fraction, Probability, Section, Share, ZeroOr

Aspect = Annotated[float, Field(ge=0.01, le=100.0)]
Strength = Annotated[float, Field(ge=0.0, le=10.0)]
Alpha = Annotated[float, ZeroOr(1e-6, 100.0)]

# Keys that do not change an image by themselves: they mix the images of a batch, limit the number of views,
# or are parameters of the crop.
NOT_AUGMENTING = ("mixup_alpha", "cutmix_alpha", "views", "scale", "ratio")


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"must be [low, high] with 0 < low <= high; it is [{value[0]:g}, {value[1]:g}]")
    return value


class ColorJitter(Section):
    """Random changes of brightness, contrast, saturation and hue, as in torchvision's ColorJitter."""

    brightness: Strength = Field(
        0.0, description="Largest relative change of brightness: a factor from 1 - x to 1 + x."
    )
    contrast: Strength = Field(
        0.0, description="Largest relative change of contrast: a factor from 1 - x to 1 + x."
    )
    saturation: Strength = Field(
        0.0, description="Largest relative change of saturation: a factor from 1 - x to 1 + x."
    )
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.0, description="Largest shift of hue, as a share of the colour circle."
    )


class RandAugment(Section):
    """RandAugment (Cubuk et al. 2019): random operations of one strength."""

    num_ops: Annotated[int, Field(ge=1, le=14)] = Field(2, description="Number of operations per image.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="Strength of the operations.")


class AugmentSection(Section):
    """Random changes to training images. Evaluation images never change."""

    crop: Literal["none", "random_resized"] = Field(
        "none",
        description="`none` crops training images like evaluation images. `random_resized` crops a random "
        "part and resizes it to `data.image_size`; under `data.resize_mode: pad` and `squash`, the part has "
        "the aspect ratio of the image.",
    )
    scale: Annotated[tuple[Share, Share], AfterValidator(_check_range)] = Field(
        (0.08, 1.0), description="Smallest and largest share of the image's area in a random resized crop."
    )
    ratio: Annotated[tuple[Aspect, Aspect], AfterValidator(_check_range)] = Field(
        (0.75, 1.3333333333333333),
        description="Smallest and largest aspect ratio (width to height) of a random resized crop. Under "
        "`data.resize_mode: pad` and `squash`, it is relative to the aspect ratio of the image.",
    )
    flip: bool = Field(False, description="Flips an image horizontally with probability 0.5.")
    vertical_flip: bool = Field(False, description="Flips an image vertically with probability 0.5.")
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = Field(
        0.0, description="Largest rotation in either direction, in degrees."
    )
    translate: Fraction = Field(
        0.0, description="Largest shift in either direction, as a share of the image's side."
    )
    color_jitter: ColorJitter | None = None
    randaugment: RandAugment | None = None
    trivial_augment: bool = Field(
        False, description="TrivialAugment (Müller and Hutter 2021): one random operation per image."
    )
    random_erasing: Probability = Field(
        0.0, description="Probability of erasing a random rectangle (Zhong et al. 2017)."
    )
    mixup_alpha: Alpha = Field(
        0.0, description="Alpha of mixup (Zhang et al. 2017), which blends pairs of images. 0 turns it off."
    )
    cutmix_alpha: Alpha = Field(
        0.0,
        description="Alpha of CutMix (Yun et al. 2019), which pastes a part of one image into another. 0 "
        "turns it off.",
    )
    views: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None,
        description="Number of different views per image: epoch e shows view e mod `views`, so frozen layers "
        "compute the features of each view once. null shows a new view in every epoch.",
    )

    @property
    def changes_images(self) -> bool:
        """Whether any key, mixing aside, makes a training image differ from its evaluation image.

        No default changes an image. So every key that is not at its default counts, including keys that are
        added later.
        """
        return any(
            getattr(self, name) != field.default
            for name, field in type(self).model_fields.items()
            if name not in NOT_AUGMENTING
        )

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.randaugment is not None and self.trivial_augment:
            raise ConflictError((("trivial_augment",), "choose one of randaugment and trivial_augment"))
        return self
