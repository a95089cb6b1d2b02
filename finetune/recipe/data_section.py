"""The ``data`` section: the images, their splits, and how they are resized."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from finetune.recipe.catalog import KNOWN_SETS
from finetune.recipe.fields import Auto, ConflictError, Section, Seed, SplitShare, Text
from finetune.recipe.limits import IMAGE_SIZE, RESIZE


class FoldSection(Section):
    """The fold of a cross-validation that becomes the test split. `finetune cv` sets it."""

    number: Annotated[int, Field(ge=0, le=999)] = Field(
        description="The number of the fold that is held out, from 0."
    )
    of: Annotated[int, Field(ge=2, le=1000)] = Field(description="The number of folds.")

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.number >= self.of:
            raise ConflictError((("number",), f"must be less than `of` ({self.of}); folds count from 0"))
        return self


def _check_pattern(value: str) -> str:
    """A text with a parenthesis is a pattern, and must have one capture group."""
    if "(" not in value:
        return value
    try:
        groups = re.compile(value).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a valid regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"must have one capture group, which names the group; it has {groups}")
    return value


class DataSection(Section):
    """The images, their splits, and how they are resized."""

    source: Text = Field(
        description=f"Where the images come from: a known set ({', '.join(KNOWN_SETS)}), a folder, a CSV "
        "file (`path,label[,split]`), or a torchvision data set (`torchvision:CIFAR10`). Relative paths "
        "start at the working directory."
    )
    val_fraction: SplitShare = Field(
        0.1,
        description="Share of the training images to hold out as val, stratified by class. Used only if the "
        "source has no val split.",
    )
    test_fraction: SplitShare = Field(
        0.2,
        description="Share of all images to hold out as test, stratified by class. Used only if the source "
        "has no splits at all.",
    )
    split_seed: Seed | Auto = Field(
        "auto",
        description="Seed for holding out val and test and for the folds. `auto` uses `seed`.",
    )
    group_by: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_pattern)] | None = (
        Field(
            None,
            description="Keeps groups of images, such as the images of one patient, in one split when val, "
            "test or folds are held out. A column of the CSV file, or a regular expression on file names "
            "with one capture group.",
        )
    )
    split_column: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None,
        description="The column of a CSV file that assigns images to train, val and test. `none` ignores "
        "all columns; null uses `split`, or a column whose values are names of splits.",
    )
    layout: Literal["auto", "classes"] = Field(
        "auto",
        description="How to read a folder. `auto` recognizes splits by folder names and contents; `classes` "
        "takes every folder in it as a class.",
    )
    fold: FoldSection | None = None
    image_size: Annotated[int, Field(ge=IMAGE_SIZE[0], le=IMAGE_SIZE[1])] | Auto = Field(
        "auto",
        description="Side of the square network input, in pixels. `auto` uses that of the source weights.",
    )
    resize: Annotated[int, Field(ge=RESIZE[0], le=RESIZE[1])] | Auto = Field(
        "auto",
        description="Size before the centre crop, in pixels. `auto` keeps the proportion of the source "
        "weights to `image_size`; under `resize_mode: pad`, which crops nothing, it equals `image_size`.",
    )
    resize_mode: Literal["auto", "shorter", "squash", "pad"] = Field(
        "auto",
        description="`shorter` resizes the shorter side to `resize` and crops the centre. `squash` resizes "
        "both sides, whatever the aspect ratio. `pad` resizes the longer side and fills the rest with the "
        "mean colour. `auto` uses the mode of the source weights, usually `shorter`.",
    )
    interpolation: Literal["auto", "nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "auto", description="Interpolation for resizing. `auto` uses that of the source weights."
    )
    decode: Literal["auto", "full"] = Field(
        "auto",
        description="Decoding of large JPEG training images. Under `crop: random_resized`, `auto` decodes "
        "them at a reduced size that is still large enough; `full` never does. Evaluation always decodes at "
        "full size.",
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = Field(
        "auto",
        description="Number of loader processes. `auto` is 0 on up to two cores, otherwise the number of "
        "cores minus two, at most 8.",
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error",
        description="How to handle an unreadable image. `error` stops and names it; `skip` leaves it out and "
        "reports it.",
    )

    @model_validator(mode="after")
    def _pad_fits(self) -> Self:
        resize, size = self.resize, self.image_size
        if self.resize_mode == "pad" and resize != "auto" and size != "auto" and resize > size:
            message = f"must be at most image_size ({size}), because resize_mode: pad shows the whole image"
            raise ConflictError((("resize",), message))
        return self
