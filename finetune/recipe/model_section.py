"""The ``model`` section: the source network and the new head."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from finetune.recipe.fields import Auto, ConflictError, Fraction, Probability, Section, Share, Text
from finetune.recipe.limits import CHANNELS, HIDDEN


class HeadSection(Section):
    """The new classification head."""

    type: Literal["linear", "cosine"] = Field(
        "linear",
        description="`linear` is a linear layer. `cosine` computes logits as the cosine similarity between "
        "the features and a vector per class, times `scale`.",
    )
    at: Annotated[int, Field(ge=2, le=10_000)] | Text | None = Field(
        None,
        description="Number or name of a layer (see `finetune layers`). The new head, after pooling, "
        "replaces this layer and all later ones. null replaces only the last linear or convolutional layer.",
    )
    hidden: Annotated[int, Field(ge=HIDDEN[0], le=HIDDEN[1])] | None = Field(
        None, description="Number of units of a hidden layer with ReLU in the new head. null adds no layer."
    )
    scale: Annotated[float, Field(ge=1e-4, le=1e4)] = Field(
        10.0, description="Initial factor of the cosine similarities. For `type: cosine` only."
    )
    learn_scale: bool = Field(True, description="Whether `scale` is trained. For `type: cosine` only.")
    dropout: Fraction = Field(
        0.0, description="Dropout probability before each linear layer of the new head."
    )
    init: Literal["xavier", "normal", "zero", "default"] = Field(
        "xavier",
        description="Initialization of the head's weights: `xavier` (uniform), `normal` (standard deviation "
        "0.01), `zero`, or PyTorch's `default`. Biases start at zero, except under `default`.",
    )
    reuse: Auto | dict[str, str | Annotated[int, Field(ge=0, le=1_000_000)]] | None = Field(
        None,
        description="Classes whose head weights start from those of a source class. `auto` matches classes "
        "by name; a mapping names the source class, or its number, for each class.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.type == "cosine" and self.init == "zero":
            raise ConflictError((("init",), "type: cosine needs vectors with a direction; use xavier"))
        if self.reuse is not None and (self.type == "cosine" or self.hidden or self.at is not None):
            message = "needs a head like that of the source: leave out at, hidden and type: cosine"
            raise ConflictError((("reuse",), message))
        return self


class WeightsFile(Section):
    """A checkpoint or a run directory to start from, and how to read it."""

    path: Text = Field(description="A .pt, .pth or .safetensors file, or a run directory.")
    rename: dict[str, str] = Field(
        default_factory=dict,
        description="Prefixes of the parameter names in the file, and their replacements, applied in order.",
    )
    min_share: Probability = Field(
        0.9,
        description="Minimum share of the backbone's parameters, without the head, that the file must have.",
    )


def _check_channels(value: int) -> int:
    if value == 2:
        raise ValueError("must be 1 (grey), 3 (colour) or more (the colours repeat); it is 2")
    return value


Channels = Annotated[int, Field(ge=CHANNELS[0], le=CHANNELS[1]), AfterValidator(_check_channels)]


class ModelSection(Section):
    """The source network and the new head."""

    backbone: Text = Field(
        description="The source network: a name that `finetune backbones` lists, or `timm:NAME` if timm is "
        "installed."
    )
    weights: Text | WeightsFile = Field(
        "default",
        description="The weights to start from: `default`, `none` (random), the name of torchvision weights "
        "(`IMAGENET1K_V2`), a checkpoint, a run directory, or a mapping with `path`.",
    )
    in_channels: Channels = Field(
        3,
        description="Number of input channels. 1 converts images to grey. 4 or more reads that many 8-bit "
        "bands from TIFF or `.npy` files; colour images repeat their channels (R, G, B, R, ...).",
    )
    head: HeadSection = Field(default_factory=HeadSection)
    batchnorm: Literal["train", "frozen"] = Field(
        "train",
        description="`frozen` runs every BatchNorm layer in eval mode with the statistics of the source "
        "weights. `train` updates them, except in frozen layers.",
    )
    batchnorm_momentum: Share | Literal["auto", "keep"] = Field(
        "auto",
        description="Momentum of the running statistics. `auto` raises it if the statistics would lag behind "
        "in a run of this length; `keep` leaves it unchanged.",
    )
    batchnorm_recalibrate: Annotated[int, Field(ge=2, le=10_000_000)] | None = Field(
        None,
        description="Number of training images on which to recompute the BatchNorm statistics before each "
        "validation. null does not recompute them.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batchnorm == "frozen" and self.batchnorm_recalibrate is not None:
            message = "has no effect under batchnorm: frozen; leave one of them out"
            raise ConflictError((("batchnorm_recalibrate",), message))
        if self.head.reuse is not None and self.weights == "none":
            raise ConflictError((("head", "reuse"), "`weights: none` has no classifier to start from"))
        return self
