"""The recipe: one typed section per section of the YAML file, each in a file of its own.

Fields are strict (``"5"`` is not a number, ``yes`` is not a boolean), unknown keys are errors, and instances
are frozen. ``"auto"`` stands for a value that follows from something else. If it follows from other keys,
:class:`Recipe` replaces it, so a resolved recipe shows the number.
"""

from typing import Self

from pydantic import Field, model_validator

from finetune.recipe.augment_section import AugmentSection, ColorJitter, RandAugment
from finetune.recipe.cache_section import CacheSection
from finetune.recipe.data_section import DataSection, FoldSection
from finetune.recipe.defaults import resolve_train
from finetune.recipe.fields import SEEDS, Fault, Section, Seed, default_of, raise_conflicts
from finetune.recipe.model_section import HeadSection, ModelSection, WeightsFile
from finetune.recipe.train_section import DEFAULT_BATCH_SIZE, PhaseSection, TrainSection

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "SEEDS",
    "AugmentSection",
    "ColorJitter",
    "DataSection",
    "FoldSection",
    "HeadSection",
    "ModelSection",
    "PhaseSection",
    "RandAugment",
    "Recipe",
    "TrainSection",
    "WeightsFile",
    "default_of",
]


# Of two classes, the second derivative of the loss is negative where the true class is improbable.
FOCAL = "is focal, which is not convex and has no minimum to solve for"


class Recipe(Section):
    """A whole recipe. :func:`finetune.recipe.load.load_recipe` reads one from a file."""

    seed: Seed = Field(0, description="Seed of all randomness: splits, order, augmentation, head, dropout.")
    data: DataSection
    model: ModelSection
    train: TrainSection = Field(default_factory=TrainSection)
    cache: CacheSection = Field(default_factory=CacheSection)

    @property
    def warnings(self) -> list[str]:
        """Warnings about valid keys that are probably not intended. Each begins with the keys."""
        if self.train.sampler == self.train.class_weights == "balanced":
            return [
                "train.sampler: balanced and train.class_weights: balanced correct unequal classes twice: "
                "rare classes are drawn more often and weigh more each time. Keep one of the two."
            ]
        return []

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        raise_conflicts(_solved_head_conflicts(self.train, self.model.head))
        return self

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        # Frozen instances are written once, here, before anyone has seen them.
        train = resolve_train(self.train, from_scratch=self.model.weights == "none")
        object.__setattr__(self, "train", train)
        if self.data.split_seed == "auto":
            object.__setattr__(self, "data", self.data.model_copy(update={"split_seed": self.seed}))
        return self


def _solved_head_conflicts(train: TrainSection, head: HeadSection) -> list[Fault]:
    """The conflicts of phases under ``optimizer: lbfgs``, which solves a linear head exactly."""
    solved = {
        n: each for n, each in enumerate(train.phases) if (each.optimizer or train.optimizer) == "lbfgs"
    }
    if not solved:
        return []
    faults: list[Fault] = []
    for number in solved:
        phase, where = train.phases[number], ("train", "phases", number)
        if phase.freeze in ("none", 0):
            faults.append((where, "optimizer: lbfgs needs frozen features; write freeze: backbone"))
        if "epochs" in phase.model_fields_set and phase.epochs != 1:
            message = "optimizer: lbfgs solves the head in one step; leave this out"
            faults.append(((*where, "epochs"), message))
        if phase.weight_decay == 0 or (phase.weight_decay is None and train.weight_decay == 0):
            message = "optimizer: lbfgs needs a weight_decay above 0, or auto (cross-validation)"
            faults.append((where, message))
        if train.loss == "focal":
            faults.append((where, f"train.loss {FOCAL}: not allowed with optimizer: lbfgs"))
    augment = train.augment
    refusals: list[tuple[object, tuple[str, ...], str]] = [
        (head.hidden, ("model", "head", "hidden"), "makes the head nonlinear"),
        (head.type == "cosine", ("model", "head", "type"), "makes the head nonlinear"),
        (train.l2_sp, ("train", "l2_sp"), "replaces weight decay, which the solution needs"),
        (train.loss == "focal", ("train", "loss"), FOCAL),
    ]
    if len(solved) == len(train.phases):
        # Phases of another optimizer could use these.
        refusals += [
            (head.dropout, ("model", "head", "dropout"), "is random"),
            (augment.mixup_alpha, ("train", "augment", "mixup_alpha"), "is random"),
            (augment.cutmix_alpha, ("train", "augment", "cutmix_alpha"), "is random"),
            (train.label_smoothing, ("train", "label_smoothing"), "is not part of softmax regression"),
            (train.sampler != "shuffle", ("train", "sampler"), "has no effect; try class_weights: balanced"),
            (
                augment.changes_images and augment.views is None,
                ("train", "augment"),
                "shows a new view in every epoch; set augment.views",
            ),
        ]
    elif augment.views is not None and train.sampler != "shuffle":
        refusals.append((True, ("train", "sampler"), "draws more views of an image than augment.views"))
    return faults + [
        (path, f"{path[-1]} {reason}: not allowed with optimizer: lbfgs")
        for refused, path, reason in refusals
        if refused
    ]
