"""The ``train`` section: optimizer, schedule, phases, and how steps are computed."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune.recipe.augment_section import AugmentSection
from finetune.recipe.fields import (
    Auto,
    Batch,
    ConflictError,
    Decay,
    Epochs,
    Fault,
    Fraction,
    OptimizerName,
    ScheduleName,
    Section,
    Share,
    Text,
    Warmup,
    raise_conflicts,
)

DEFAULT_BATCH_SIZE = 32

Rate = Annotated[float, Field(ge=1e-12, le=100.0)]
Multiple = Annotated[float, Field(ge=1e-6, le=1e6)]
Steps = Annotated[int, Field(ge=1, le=10**12)]
LayerNumber = Annotated[int, Field(ge=0, le=10_000)]
ClassWeight = Annotated[float, Field(ge=1e-3, le=1e3)]


class L2SPSection(Section):
    """L2-SP (Li, Grandvalet and Davoine 2018): decay toward the starting weights, instead of weight decay."""

    alpha: Decay = Field(0.1, description="Strength of the body's decay toward its starting weights.")
    beta: Decay = Field(0.01, description="Strength of the head's decay toward zero.")


class PhaseSection(Section):
    """One phase of training. Keys that are null take their value from `train`."""

    freeze: LayerNumber | Text = Field(
        "none",
        description="The layers to freeze: k for the first k layers of `finetune layers`, the name of a "
        "layer for all up to it, `backbone` for all but the head, or `none`.",
    )
    epochs: Epochs = Field(5, description="Number of epochs.")
    lr: Rate | Auto = Field(
        "auto",
        description="Learning rate of the body. `auto` is 1e-4 for adamw (1e-3 under `freeze: backbone`) and "
        "1e-2 for sgd, and ten times as much with `weights: none`.",
    )
    head_lr_mult: Multiple | Auto = Field(
        "auto",
        description="The head's learning rate is `lr` times this factor. `auto` is 10, or 1 with "
        "`weights: none`.",
    )
    layer_decay: Annotated[float, Field(ge=0.01, le=1.0)] | None = Field(
        None,
        description="Factor of the learning rate from each layer to the one before it, counted from the "
        "body's last layer. null uses one rate for the whole body.",
    )
    optimizer: OptimizerName | None = Field(None, description="Optimizer. null uses `train.optimizer`.")
    weight_decay: Decay | Auto | None = Field(
        None,
        description="Weight decay. null uses `train.weight_decay`. `auto` uses it too; under `lbfgs`, it "
        "chooses the decay by cross-validation on the training images.",
    )
    schedule: ScheduleName | None = Field(
        None, description="Learning rate schedule. null uses `train.schedule`."
    )
    warmup_epochs: Warmup | None = Field(
        None,
        description="Epochs of linear warmup, fewer than `epochs`. null uses `train.warmup_epochs`.",
    )


class TrainSection(Section):
    """How the network is trained."""

    batch_size: Batch | Auto = Field(
        DEFAULT_BATCH_SIZE,
        description=f"Number of images per batch. `auto` makes steps of {DEFAULT_BATCH_SIZE} images and "
        "splits them into as many batches (`accumulate`) as memory requires.",
    )
    optimizer: OptimizerName = Field(
        "adamw",
        description="Optimizer. `lbfgs` solves a linear head exactly (softmax regression), for phases with "
        "`freeze: backbone`. It uses the views that `augment.views` fixes, or the evaluation images.",
    )
    momentum: Fraction = Field(0.9, description="Momentum of sgd.")
    weight_decay: Decay | Auto = Field(
        "auto",
        description="Weight decay. `auto` is 1e-2 for adamw and 1e-4 for sgd; under `lbfgs`, it is chosen by "
        "cross-validation on the training images.",
    )
    decay_bias_and_norm: bool = Field(
        False,
        description="Applies weight decay to all parameters, including biases and normalization layers.",
    )
    l2_sp: L2SPSection | None = None
    schedule: ScheduleName = Field(
        "cosine",
        description="Learning rate over a phase: `cosine` decays to zero, `one_cycle` rises and then decays, "
        "`step` drops every `step_epochs`, `constant` stays.",
    )
    warmup_epochs: Warmup = Field(
        0.0,
        description="Epochs of linear warmup at the start of each phase. Must be 0 under `one_cycle`, which "
        "has its own.",
    )
    step_epochs: Epochs = Field(
        10, description="Number of epochs between drops of the rate. For `schedule: step` only."
    )
    step_gamma: Share = Field(0.1, description="Factor of each drop. For `schedule: step` only.")
    label_smoothing: Fraction = Field(
        0.0, description="Share of the target probability that is spread over all classes."
    )
    grad_clip_norm: Annotated[float, Field(ge=1e-8, le=1e8)] | None = Field(
        None, description="Largest norm of the gradient; larger ones are scaled down. null does not clip."
    )
    accumulate: Batch = Field(1, description="Number of batches per optimizer step.")
    ema: Annotated[float, Field(ge=1e-6, le=0.999999)] | None = Field(
        None,
        description="Decay of an exponential moving average of the weights, which evaluation and export use "
        "instead of the weights. null keeps no average.",
    )
    select: Literal["top1", "balanced_accuracy", "loss", "last"] = Field(
        "top1",
        description="How to choose the best epoch: by `top1`, `balanced_accuracy` (the mean over the "
        "classes) or `loss` on val, or always the `last` one. `loss` is less noisy than `top1` on a small "
        "val split; `balanced_accuracy` suits classes of uneven size.",
    )
    calibrate: Literal["temperature", "none"] = Field(
        "temperature",
        description="How to calibrate the probabilities of the best checkpoint, on val: by one `temperature` "
        "that divides the logits, or not at all. The predicted classes stay the same.",
    )
    novelty: Literal["neighbours", "none"] = Field(
        "neighbours",
        description="How to tell images that are unlike the training images: by the distance to the nearest "
        "`neighbours` among at most 500 of them, in features of the best checkpoint, or not at all.",
    )
    refit: bool = Field(
        False,
        description="After the best epoch is chosen, trains once more from the start, on train and val "
        "together and as long as to the best epoch. The result is not evaluated on val.",
    )
    early_stopping: Epochs | None = Field(
        None,
        description="Ends a phase after this many epochs without improvement on val. null never does.",
    )
    sampler: Literal["shuffle", "balanced"] = Field(
        "shuffle",
        description="`shuffle` draws every image once per epoch; `balanced` draws every class equally often.",
    )
    class_weights: Literal["none", "balanced"] | dict[Text, ClassWeight] = Field(
        "none",
        description="Weights of the classes in the loss. `balanced` weights a class by the inverse of its "
        "frequency; a mapping gives weights by class name, and 1 to the classes that it does not name. Only "
        "their ratios matter.",
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy",
        description="`focal` counts images that are classified well less (Lin et al. 2017). `optimizer: "
        "lbfgs` needs `cross_entropy`.",
    )
    focal_gamma: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        2.0,
        description="How much less: the loss is multiplied by (1 - p) to this power, p the probability of "
        "the class. For `loss: focal` only.",
    )
    logit_adjust: Annotated[float, Field(ge=0.0, le=10.0)] | None = Field(
        None,
        description="Logit adjustment (Menon et al. 2021): the loss adds this number times the log of a "
        "class's frequency in train to its logit. With 1 the network learns to treat all classes as equally "
        "frequent. null and 0 add nothing.",
    )
    augment: AugmentSection = Field(default_factory=AugmentSection)
    phases: Annotated[tuple[PhaseSection, ...], Field(min_length=1)] = Field(
        (PhaseSection(),),
        description="Phases of training, in order. One phase is plain fine-tuning; two, the first with "
        "`freeze: backbone`, train the head before the rest.",
    )
    max_steps: Steps | None = Field(
        None, description="Largest number of optimizer steps, over all phases. null sets no limit."
    )
    checkpoint_every_steps: Steps | None = Field(
        None, description="Number of steps between checkpoints within an epoch. null saves after each epoch."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Number format of training steps. `auto` is bf16 if the CPU or GPU supports it, "
        "otherwise fp16 on CUDA and fp32 elsewhere. Evaluation uses fp32.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "auto", description="Memory format of tensors. `auto` is channels_last on the CPU and on CUDA."
    )
    compile: bool = Field(
        False,
        description="Compiles the trained part of the network with torch.compile, which slows the start. "
        "On the CPU it requires a C++ compiler.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        "auto",
        description="Number of CPU threads. `auto` uses PyTorch's default, limited to the cores that a "
        "container may use.",
    )
    deterministic: bool = Field(
        False, description="Refuses CUDA operations whose results are not bit-identical between runs."
    )

    @property
    def images_per_batch(self) -> int:
        """``batch_size`` of a recipe whose ``auto`` has been resolved."""
        assert self.batch_size != "auto"
        return self.batch_size

    @model_validator(mode="after")
    def _one_decay(self) -> Self:
        if self.l2_sp is None:
            return self
        faults: list[Fault] = []
        message = "l2_sp replaces weight decay; leave out one of them"
        if self.weight_decay not in ("auto", 0.0):
            faults.append((("weight_decay",), message))
        for number, phase in enumerate(self.phases):
            if phase.weight_decay not in (None, 0.0, "auto"):
                faults.append((("phases", number, "weight_decay"), message))
        raise_conflicts(faults)
        return self

    @model_validator(mode="after")
    def _one_correction(self) -> Self:
        if not self.logit_adjust:
            return self
        other: list[tuple[str, str]] = []
        if self.class_weights == "balanced":
            other.append(("class_weights", "and class_weights: balanced correct uneven classes twice"))
        if self.sampler == "balanced":
            other.append(
                ("sampler", "has nothing to correct under sampler: balanced, whose classes are even")
            )
        if self.loss == "focal":
            other.append(("loss", "is defined for cross_entropy, not for loss: focal"))
        raise_conflicts(
            [
                ((key,), f"logit_adjust {reason}; keep one of the two")
                for name, reason in other
                for key in (name, "logit_adjust")
            ]
        )
        return self

    @model_validator(mode="after")
    def _val_selects(self) -> Self:
        if self.select == "last" and self.early_stopping is not None:
            raise ConflictError((("early_stopping",), "has no effect under select: last; leave it out"))
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        faults: list[Fault] = []
        for number, phase in enumerate(self.phases):
            schedule = phase.schedule or self.schedule
            own = phase.warmup_epochs is not None
            warmup = phase.warmup_epochs if phase.warmup_epochs is not None else self.warmup_epochs
            where = ("phases", number, "warmup_epochs") if own else ("phases", number)
            source = "" if own else f"train.warmup_epochs ({warmup:g}) applies to this phase: "
            if schedule == "one_cycle" and warmup:
                faults.append((where, f"{source}one_cycle has its own warmup; set warmup_epochs: 0 here"))
            elif warmup >= phase.epochs:
                faults.append(
                    (where, f"{source}warmup_epochs ({warmup:g}) must be less than epochs ({phase.epochs})")
                )
        raise_conflicts(faults)
        return self
