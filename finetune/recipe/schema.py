"""The recipe, one typed model per section of the YAML file.

Fields are strict (``"5"`` is no number, ``yes`` is no boolean), unknown keys are errors, and instances are
frozen. ``"auto"`` stands for a value that follows from something else; where that something is another key,
it is filled in here, so that a resolved recipe shows a number.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from finetune.recipe.catalog import KNOWN_SETS
from finetune.recipe.limits import CHANNELS, HIDDEN, IMAGE_SIZE, RESIZE

Auto = Literal["auto"]
# Every number has a least and a greatest value that its use can bear: a count that memory, threads and the
# arithmetic of steps hold, a number that float32 can be multiplied and divided by.
Fraction = Annotated[float, Field(ge=0.0, le=0.999)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=1e-6, le=1.0)]
# Of images, that a split takes.
Part = Annotated[float, Field(ge=1e-6, le=0.999)]
Aspect = Annotated[float, Field(ge=0.01, le=100.0)]
Strength = Annotated[float, Field(ge=0.0, le=10.0)]
Rate = Annotated[float, Field(ge=1e-12, le=100.0)]
Multiple = Annotated[float, Field(ge=1e-6, le=1e6)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=1, le=10**12)]
SEEDS = 2**32
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Batch = Annotated[int, Field(ge=1, le=1_000_000)]
LayerNumber = Annotated[int, Field(ge=0, le=10_000)]

DEFAULT_WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 1e-2}
# The body's rate; from scratch ten times as much, since no learned features are at risk.
DEFAULT_LR = {"sgd": 1e-2, "adamw": 1e-4}
# Where the head alone trains, no feature can be spoilt: AdamW may go faster.
DEFAULT_HEAD_ONLY_LR = {"sgd": 1e-2, "adamw": 1e-3}
MOST_TB = 1_000_000
MOST_BYTES = MOST_TB * 1000**4
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])B")
FROM_SCRATCH_LR_FACTOR = 10.0
DEFAULT_HEAD_LR_MULT = 10.0
DEFAULT_BATCH_SIZE = 32


class ConflictError(ValueError):
    """Keys that are valid alone but not together.

    Each of ``faults`` is the path of the key to change, from the section that checks it, and a message.
    Pydantic passes this error on in the context of its own error.
    """

    def __init__(self, *faults: tuple[tuple[str | int, ...], str]) -> None:
        self.faults = faults
        super().__init__("; ".join(message for _, message in faults))


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"must be [low, high] with 0 < low <= high; it is [{value[0]:g}, {value[1]:g}]")
    return value


def _not_two(value: int) -> int:
    if value == 2:
        raise ValueError("must be 1 (grey), 3 (colour) or more (the colours repeat); it is 2")
    return value


@dataclass(frozen=True)
class ZeroOr:
    """A number that is 0, or from ``low`` to ``high``: one in between is 0 to some of the arithmetic only."""

    low: float
    high: float

    def _check(self, value: float) -> float:
        if value and not self.low <= value <= self.high:
            raise ValueError(f"must be 0, or a number from {self.low:g} to {self.high:g}; it is {value:g}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        number = handler(schema) | {"minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"const": 0}, number]}


Decay = Annotated[float, ZeroOr(1e-12, 100.0)]
Alpha = Annotated[float, ZeroOr(1e-6, 100.0)]
Warmup = Annotated[float, ZeroOr(1e-6, 999_999.0)]


class Section(BaseModel):
    """Base of all sections: strict, frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def default_of(section: type[Section], key: str) -> Any:
    """What ``key`` of ``section`` is where a recipe says nothing, for who has no recipe."""
    return section.model_fields[key].get_default(call_default_factory=True)


class FoldSection(Section):
    """One fold of a cross-validation: what is held out as test, of train and val together."""

    number: Annotated[int, Field(ge=0, le=999)] = Field(description="which fold is held out, from 0")
    of: Annotated[int, Field(ge=2, le=1000)] = Field(description="how many folds there are")

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.number >= self.of:
            raise ConflictError(
                (("number",), f"must be less than `of` ({self.of}): folds are counted from 0")
            )
        return self


def _one_group(value: str) -> str:
    if "(" not in value:
        return value
    try:
        groups = re.compile(value).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no pattern (regular expression): {error}") from None
    if groups != 1:
        raise ValueError(f"must have one capture group, which tells the group; it has {groups}")
    return value


class DataSection(Section):
    """Which images, how they are split and how they are brought to size."""

    source: Annotated[str, Field(min_length=1)] = Field(
        description=f"a known set ({', '.join(KNOWN_SETS)}), a folder, a CSV file (path,label[,split]), "
        "or a torchvision data set (torchvision:CIFAR10); relative paths start at the working directory"
    )
    val_fraction: Part = Field(
        0.1, description="share of train that becomes val, stratified, only where the source has no val split"
    )
    test_fraction: Part = Field(
        0.2, description="share that becomes test, stratified, only where the source has no splits at all"
    )
    split_seed: Seed | Auto = Field(
        "auto", description="decides which images are carved out as val and test, and the folds; auto: seed"
    )
    group_by: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_group)] | None = Field(
        None,
        description="keep together what belongs together (a patient, a scene) when val, test or folds are "
        "carved out: a column of the CSV file, or a pattern over file names with one capture group",
    )
    split_column: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None,
        description="of a CSV file, the column that tells train, val and test; none: no column does; null: "
        "`split`, or one whose values are the names of splits",
    )
    layout: Literal["auto", "classes"] = Field(
        "auto",
        description="of a folder: auto: splits are told by the names of folders and by what is in them; "
        "classes: every folder in it is a class, whatever its name and whatever is in it",
    )
    fold: FoldSection | None = Field(
        None, description="of a cross-validation, which `finetune cv` fills in: the fold that becomes test"
    )
    image_size: Annotated[int, Field(ge=IMAGE_SIZE[0], le=IMAGE_SIZE[1])] | Auto = Field(
        "auto", description="side of the square that the network sees, in pixels; auto: the weights' own"
    )
    resize: Annotated[int, Field(ge=RESIZE[0], le=RESIZE[1])] | Auto = Field(
        "auto",
        description="size before the centre crop, in pixels; auto: in the weights' own proportion, and under "
        "resize_mode: pad, where nothing is cropped, image_size",
    )
    resize_mode: Literal["auto", "shorter", "squash", "pad"] = Field(
        "auto",
        description="shorter: the shorter side becomes `resize`, and the centre is cut out; squash: both "
        "sides do; pad: the longer side does, so that the whole image is there in its own proportions, and "
        "the rest is filled with the mean colour; auto: the weights' own, which is shorter as a rule",
    )
    interpolation: Literal["auto", "nearest", "bilinear", "bicubic", "lanczos"] = Field(
        "auto", description="how images are resized; auto: the weights' own"
    )
    decode: Literal["auto", "full"] = Field(
        "auto",
        description="auto: large training images are decoded at a smaller size, a little above what "
        "`crop: random_resized` needs, under which alone; full: never. Evaluation images never are",
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Auto = Field(
        "auto", description="loader processes; auto: none on up to two cores, else cores minus two, at most 8"
    )
    on_bad_image: Literal["error", "skip"] = Field(
        "error", description="an image that cannot be read: stop and name it, or leave it out and report it"
    )

    @model_validator(mode="after")
    def _whole_when_padded(self) -> Self:
        sizes = self.resize, self.image_size
        if self.resize_mode == "pad" and "auto" not in sizes and self.resize > self.image_size:  # type: ignore[operator]
            raise ConflictError(
                (
                    ("resize",),
                    f"resize_mode: pad shows the whole image: at most image_size ({self.image_size})",
                )
            )
        return self


class HeadSection(Section):
    """The new classification head."""

    type: Literal["linear", "cosine"] = Field(
        "linear",
        description="cosine: logits are the cosines between feature and class vectors, times a scale",
    )
    at: Annotated[int, Field(ge=2, le=10_000)] | Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="a layer's number or name (`finetune layers`): the new head, after pooling, replaces it "
        "and all that follows; null: the last layer only",
    )
    hidden: Annotated[int, Field(ge=HIDDEN[0], le=HIDDEN[1])] | None = Field(
        None, description="units of a hidden layer with ReLU in the new head; null: none"
    )
    scale: Annotated[float, Field(ge=1e-4, le=1e4)] = Field(
        10.0, description="of type cosine: what the cosines are multiplied by at first"
    )
    learn_scale: bool = Field(True, description="of type cosine: false keeps the scale as it is")
    dropout: Fraction = Field(0.0, description="dropout before each linear layer of the new head")
    init: Literal["xavier", "normal", "zero", "default"] = Field(
        "xavier", description="xavier: uniform; normal: std 0.01; zero; default: torch's own; biases are zero"
    )
    reuse: Auto | dict[str, str | Annotated[int, Field(ge=0, le=1_000_000)]] | None = Field(
        None,
        description="classes that start from a source class: auto (those of the same name), "
        "or {class: the source's class, or its number}",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.type == "cosine" and self.init == "zero":
            raise ConflictError((("init",), "type: cosine needs vectors with a direction; use xavier"))
        if self.reuse is not None and (self.type == "cosine" or self.hidden or self.at is not None):
            raise ConflictError(
                (("reuse",), "a source class's row fits a head like the source's: no at, hidden or cosine")
            )
        return self


class WeightsFile(Section):
    """A checkpoint or a run directory, with what it takes to read it."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="a .pt, .pth or .safetensors file, or a run directory"
    )
    rename: dict[str, str] = Field(
        default_factory=dict,
        description="prefixes of the file's names and what they become, applied in this order",
    )
    min_share: Probability = Field(
        0.9, description="least share of the backbone's parameters (all but the head's) that must be loaded"
    )


class ModelSection(Section):
    """The source network."""

    backbone: Annotated[str, Field(min_length=1)] = Field(
        description="any name that `finetune backbones` lists, or timm:NAME where timm is installed"
    )
    weights: Annotated[str, Field(min_length=1)] | WeightsFile = Field(
        "default",
        description="default | none | a torchvision name (IMAGENET1K_V2) | a checkpoint | a run directory "
        "| {path, rename, min_share}",
    )
    in_channels: Annotated[int, Field(ge=CHANNELS[0], le=CHANNELS[1]), AfterValidator(_not_two)] = Field(
        3,
        description="1: images become grey; 4 or more: so many bands of each TIFF file or array (.npy), "
        "8 bits a band; of files that have colours only, these repeat (R, G, B, R, ...)",
    )
    head: HeadSection = Field(default_factory=HeadSection)
    batchnorm: Literal["train", "frozen"] = Field(
        "train", description="frozen: every BatchNorm keeps its statistics and runs in eval mode"
    )
    batchnorm_momentum: Share | Literal["auto", "keep"] = Field(
        "auto", description="auto: raised, where needed, so that the statistics follow a run of this length"
    )
    batchnorm_recalibrate: Annotated[int, Field(ge=2, le=10_000_000)] | None = Field(
        None,
        description="before each val, compute the statistics that move anew, on so many training images",
    )

    @model_validator(mode="after")
    def _batchnorm_moves(self) -> Self:
        if self.batchnorm == "frozen" and self.batchnorm_recalibrate is not None:
            raise ConflictError(
                (("batchnorm_recalibrate",), "batchnorm: frozen keeps every statistic; leave one of them out")
            )
        return self

    @model_validator(mode="after")
    def _something_to_reuse(self) -> Self:
        if self.head.reuse is not None and self.weights == "none":
            raise ConflictError((("head", "reuse"), "`weights: none` has no classifier to start from"))
        return self


class ColorJitter(Section):
    """Strengths as in torchvision's ColorJitter."""

    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0


class RandAugment(Section):
    """Cubuk et al. 2019."""

    num_ops: Annotated[int, Field(ge=1, le=14)] = 2
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9


# Of the augmentation, what makes no image look another way by itself: what mixes images in a batch, what
# limits their looks, and what says how a crop is drawn.
LOOKS_ALIKE = ("mixup_alpha", "cutmix_alpha", "views", "scale", "ratio")


class AugmentSection(Section):
    """What training images go through; evaluation images never do."""

    crop: Literal["none", "random_resized"] = Field(
        "none",
        description="none: what evaluation sees; random_resized: a random part, under data.resize_mode pad "
        "and squash in the image's own proportions, and brought to size as they say",
    )
    scale: Annotated[tuple[Share, Share], AfterValidator(_rising)] = Field(
        (0.08, 1.0), description="share of the image's area that a random resized crop covers"
    )
    ratio: Annotated[tuple[Aspect, Aspect], AfterValidator(_rising)] = Field(
        (0.75, 1.3333333333333333),
        description="aspect ratio (width to height) of a random resized crop; under data.resize_mode pad and "
        "squash relative to the image's",
    )
    flip: bool = Field(False, description="mirror left and right, half of the time")
    vertical_flip: bool = Field(False, description="mirror up and down, half of the time")
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = Field(0.0, description="up to so many degrees")
    translate: Fraction = Field(0.0, description="shift by up to this share of the side")
    color_jitter: ColorJitter | None = None
    randaugment: RandAugment | None = None
    trivial_augment: bool = False
    random_erasing: Probability = Field(0.0, description="probability of erasing a rectangle")
    mixup_alpha: Alpha = 0.0
    cutmix_alpha: Alpha = 0.0
    views: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="how many looks an image has: epoch e shows view e mod views; null: a new one each"
    )

    @property
    def changes_images(self) -> bool:
        """Whether a training image can look another way than in evaluation, mixing aside.

        By default nothing is changed; so whatever is not at its default changes images, a field that is
        yet to come included.
        """
        return any(
            getattr(self, name) != field.default
            for name, field in type(self).model_fields.items()
            if name not in LOOKS_ALIKE
        )

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.randaugment is not None and self.trivial_augment:
            raise ConflictError((("trivial_augment",), "choose one of randaugment and trivial_augment"))
        return self


class L2SPSection(Section):
    """Holding on to the source (Li, Grandvalet and Davoine 2018), in place of weight decay."""

    alpha: Decay = Field(0.1, description="how strongly the body decays toward its starting weights")
    beta: Decay = Field(0.01, description="how strongly the head decays toward zero")


class PhaseSection(Section):
    """One stretch of training with one freeze. What is null is taken from ``train``."""

    freeze: LayerNumber | Annotated[str, Field(min_length=1)] = Field(
        "none", description="k (the first k of `finetune layers`), a layer's name, backbone, or none"
    )
    epochs: Epochs = 5
    lr: Rate | Auto = Field(
        "auto",
        description="the body's rate; auto: 1e-4 (adamw; 1e-3 under freeze: backbone) or 1e-2 (sgd), "
        "ten times that from scratch",
    )
    head_lr_mult: Multiple | Auto = Field(
        "auto", description="the head's rate is lr times this; auto: 10, or 1 with `weights: none`"
    )
    layer_decay: Annotated[float, Field(ge=0.01, le=1.0)] | None = Field(
        None,
        description="a layer's rate is lr times this to the power of its distance from the body's last layer",
    )
    optimizer: Literal["sgd", "adamw", "lbfgs"] | None = None
    weight_decay: Decay | Auto | None = Field(
        None, description="auto: as train's; under lbfgs chosen by cross-validation on train"
    )
    schedule: Literal["cosine", "one_cycle", "step", "constant"] | None = None
    warmup_epochs: Warmup | None = None


class TrainSection(Section):
    """How the network is trained."""

    batch_size: Batch | Auto = Field(
        DEFAULT_BATCH_SIZE,
        description=f"auto: {DEFAULT_BATCH_SIZE} images a step, in as many batches (accumulate) as "
        "memory asks for",
    )
    optimizer: Literal["sgd", "adamw", "lbfgs"] = Field(
        "adamw",
        description="lbfgs: under freeze: backbone, solves the linear head exactly, as softmax regression, "
        "on the looks that augment.views fixes, or on the images as evaluation sees them",
    )
    momentum: Fraction = Field(0.9, description="of sgd")
    weight_decay: Decay | Auto = Field(
        "auto", description="auto: 1e-2 (adamw), 1e-4 (sgd), by cross-validation on train (lbfgs)"
    )
    decay_bias_and_norm: bool = Field(
        False, description="true: weight decay on all parameters, not on weight matrices and kernels only"
    )
    l2_sp: L2SPSection | None = Field(
        None, description="decay toward the starting weights in place of weight decay, which is then 0"
    )
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = "cosine"
    warmup_epochs: Warmup = Field(0.0, description="linear rise at the start of each phase; not one_cycle")
    step_epochs: Epochs = Field(10, description="of schedule step: epochs between drops")
    step_gamma: Share = Field(0.1, description="of schedule step: the drop")
    label_smoothing: Fraction = 0.0
    grad_clip_norm: Annotated[float, Field(ge=1e-8, le=1e8)] | None = None
    accumulate: Batch = Field(1, description="batches per optimizer step")
    ema: Annotated[float, Field(ge=1e-6, le=0.999999)] | None = Field(
        None, description="decay of a moving average of the weights, which is then what val and test see"
    )
    select: Literal["top1", "loss", "last"] = Field(
        "top1",
        description="by what val chooses the best epoch; loss wavers less than top1 where val is small; "
        "last: val is too small to choose, and the last epoch is taken",
    )
    early_stopping: Epochs | None = Field(
        None, description="end a phase after so many epochs without a better val"
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="balanced: every class is drawn equally often"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: the loss weighs a class by the inverse of its frequency"
    )
    augment: AugmentSection = Field(default_factory=AugmentSection)
    phases: Annotated[tuple[PhaseSection, ...], Field(min_length=1)] = (PhaseSection(),)
    max_steps: Steps | None = Field(None, description="optimizer steps, all phases")
    checkpoint_every_steps: Steps | None = Field(None, description="save within an epoch too")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of training steps; auto: bf16 where the CPU or GPU computes it, else fp16 on CUDA, fp32 "
        "elsewhere. Val and test are fp32",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="of the network's tensors; auto: channels_last on the CPU and on CUDA"
    )
    compile: bool = Field(
        False, description="torch.compile what trains: slow to start; on the CPU it takes a C++ compiler"
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        "auto", description="CPU threads; auto: torch's own, and no more than a container's share of cores"
    )
    deterministic: bool = Field(False, description="refuse CUDA operations whose bits vary between runs")

    @property
    def images_a_batch(self) -> int:
        """``batch_size``, in a recipe of which ``auto`` has become a number."""
        assert self.batch_size != "auto"
        return self.batch_size

    @model_validator(mode="after")
    def _one_decay(self) -> Self:
        if self.l2_sp is None:
            return self
        faults: list[tuple[tuple[str | int, ...], str]] = []
        message = "l2_sp takes the place of weight decay; leave this out, or l2_sp"
        if self.weight_decay not in ("auto", 0.0):
            faults.append((("weight_decay",), message))
        for number, phase in enumerate(self.phases):
            if phase.weight_decay not in (None, 0.0, "auto"):
                faults.append((("phases", number, "weight_decay"), message))
        if faults:
            raise ConflictError(*faults)
        return self

    @model_validator(mode="after")
    def _val_chooses(self) -> Self:
        if self.select == "last" and self.early_stopping is not None:
            raise ConflictError((("early_stopping",), "under select: last val decides nothing; leave it out"))
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        for number, phase in enumerate(self.phases):
            schedule = phase.schedule or self.schedule
            own = phase.warmup_epochs is not None
            warmup = phase.warmup_epochs if phase.warmup_epochs is not None else self.warmup_epochs
            where = ("phases", number, "warmup_epochs") if own else ("phases", number)
            source = "" if own else f"train.warmup_epochs ({warmup:g}) reaches this phase: "
            if schedule == "one_cycle" and warmup:
                faults.append((where, f"{source}one_cycle rises by itself; set warmup_epochs: 0 here"))
            elif warmup >= phase.epochs:
                faults.append(
                    (where, f"{source}warmup_epochs ({warmup:g}) must be less than epochs ({phase.epochs})")
                )
        if faults:
            raise ConflictError(*faults)
        return self


def _size(value: str) -> str:
    if (nbytes := _nbytes(value)) is None:
        raise ValueError(f"must be a size such as 500MB or 4GB; it is {value!r}")
    if nbytes > MOST_BYTES:
        raise ValueError(f"must be at most {MOST_TB:,}TB; it is {value!r}")
    return value


def _nbytes(size: str) -> float | None:
    """Of 1000 to the KB; None where it is no size."""
    found = SIZE.fullmatch(size)
    return None if found is None else float(found[1]) * 1000 ** (1 + "KMGT".index(found[2]))


class CacheSection(Section):
    """Where the features of frozen layers and decoded images are kept. Never changes what is trained."""

    where: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="auto: on disk, or in memory, where reading is cheaper than computing anew; off: nowhere",
    )
    limit: Annotated[str, AfterValidator(_size)] = Field(
        "4GB",
        description="of memory, or of the disk that all that is kept takes: KB, MB, GB or TB",
    )

    decoded: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="where decoded images of train and val are kept for later epochs; auto: on disk, or in "
        "memory, where more than one epoch reads them and they fit the limit; off: nowhere",
    )

    @property
    def limit_bytes(self) -> int:
        """``limit`` as a number of bytes, of 1000 to the KB."""
        nbytes = _nbytes(self.limit)
        assert nbytes is not None
        return int(nbytes)


class Recipe(Section):
    """A whole recipe. Construct it from a file with :func:`finetune.recipe.load.load_recipe`."""

    seed: Seed = 0
    data: DataSection
    model: ModelSection
    train: TrainSection = Field(default_factory=TrainSection)
    cache: CacheSection = Field(default_factory=CacheSection)

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        """What a phase under ``optimizer: lbfgs`` cannot be together with."""
        faults: list[tuple[tuple[str | int, ...], str]] = []
        train, head = self.train, self.model.head
        solved = [
            n for n, phase in enumerate(train.phases) if (phase.optimizer or train.optimizer) == "lbfgs"
        ]
        if not solved:
            return self
        for number in solved:
            phase, where = train.phases[number], ("train", "phases", number)
            if phase.freeze in ("none", 0):
                faults.append(
                    (where, "optimizer: lbfgs solves a linear head on frozen features: freeze: backbone")
                )
            if "epochs" in phase.model_fields_set and phase.epochs != 1:
                faults.append(
                    ((*where, "epochs"), "optimizer: lbfgs solves the head at once; leave this out")
                )
            if phase.weight_decay == 0 or (phase.weight_decay is None and train.weight_decay == 0):
                faults.append(
                    (where, "optimizer: lbfgs needs a weight_decay above 0, or auto (cross-validation)")
                )
        refusals: list[tuple[object, tuple[str, ...], str]] = [
            (head.hidden, ("model", "head", "hidden"), "makes the head more than linear"),
            (head.type == "cosine", ("model", "head", "type"), "makes the head more than linear"),
            (train.l2_sp, ("train", "l2_sp"), "takes the place of weight decay, which it needs"),
        ]
        if len(solved) == len(train.phases):
            # Phases that make steps have a use for these.
            refusals += [
                (head.dropout, ("model", "head", "dropout"), "draws at random"),
                (train.augment.mixup_alpha, ("train", "augment", "mixup_alpha"), "draws at random"),
                (train.augment.cutmix_alpha, ("train", "augment", "cutmix_alpha"), "draws at random"),
                (train.label_smoothing, ("train", "label_smoothing"), "is not part of softmax regression"),
                (
                    train.sampler != "shuffle",
                    ("train", "sampler"),
                    "has no place; try class_weights: balanced",
                ),
                (
                    train.augment.changes_images and train.augment.views is None,
                    ("train", "augment"),
                    "shows new looks without end; give augment.views",
                ),
            ]
        elif train.augment.views is not None and train.sampler != "shuffle":
            refusals.append((True, ("train", "sampler"), "draws an image in more looks than augment.views"))
        faults += [
            (path, f"{path[-1]} {what}: not together with optimizer: lbfgs")
            for refused, path, what in refusals
            if refused
        ]
        if faults:
            raise ConflictError(*faults)
        return self

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        """Resolve the ``auto`` and null values that follow from other keys."""
        train = self.train
        from_scratch = self.model.weights == "none"
        decay = (
            DEFAULT_WEIGHT_DECAY.get(train.optimizer, "auto")
            if train.weight_decay == "auto"
            else train.weight_decay
        )
        if train.l2_sp is not None:
            decay = 0.0
        phases = []
        for phase in train.phases:
            optimizer = phase.optimizer or train.optimizer
            filled: dict[str, Any] = {"optimizer": optimizer}
            if optimizer == "lbfgs":
                filled |= {"epochs": 1, "lr": 1.0}
            elif phase.lr == "auto":
                rates = DEFAULT_HEAD_ONLY_LR if phase.freeze == "backbone" else DEFAULT_LR
                filled["lr"] = rates[optimizer] * (FROM_SCRATCH_LR_FACTOR if from_scratch else 1.0)
            if phase.head_lr_mult == "auto":
                filled["head_lr_mult"] = 1.0 if from_scratch else DEFAULT_HEAD_LR_MULT
            if phase.weight_decay is None or (phase.weight_decay == "auto" and optimizer != "lbfgs"):
                own = train.weight_decay == "auto" and train.l2_sp is None
                filled["weight_decay"] = DEFAULT_WEIGHT_DECAY.get(optimizer, "auto") if own else decay
            if phase.schedule is None:
                filled["schedule"] = train.schedule
            if phase.warmup_epochs is None:
                filled["warmup_epochs"] = train.warmup_epochs
            phases.append(phase.model_copy(update=filled))
        filled_train = train.model_copy(update={"weight_decay": decay, "phases": tuple(phases)})
        # Frozen instances are written once, here, before anyone has seen them.
        object.__setattr__(self, "train", filled_train)
        if self.data.split_seed == "auto":
            object.__setattr__(self, "data", self.data.model_copy(update={"split_seed": self.seed}))
        return self
