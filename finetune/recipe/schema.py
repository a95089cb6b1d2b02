"""The recipe: one typed section per section of the YAML file, each in a file of its own.

Fields are strict (``"5"`` is not a number, ``yes`` is not a boolean), unknown keys are errors, and instances
are frozen. ``"auto"`` stands for a value that follows from something else. If it follows from other keys,
:class:`Recipe` replaces it, so a resolved recipe shows the number.
"""

from typing import Self

from pydantic import Field, model_validator

from finetune.recipe.augment_section import NOT_AUGMENTING, AugmentSection, ColorJitter, RandAugment
from finetune.recipe.cache_section import CacheSection
from finetune.recipe.data_section import DataSection, FoldSection
from finetune.recipe.defaults import resolve_train
from finetune.recipe.fields import SEEDS, ConflictError, Section, Seed, default_of, raise_conflicts
from finetune.recipe.model_section import HeadSection, ModelSection, WeightsFile
from finetune.recipe.solved_head import solved_head_conflicts
from finetune.recipe.train_section import DEFAULT_BATCH_SIZE, L2SPSection, PhaseSection, TrainSection

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "NOT_AUGMENTING",
    "SEEDS",
    "AugmentSection",
    "CacheSection",
    "ColorJitter",
    "ConflictError",
    "DataSection",
    "FoldSection",
    "HeadSection",
    "L2SPSection",
    "ModelSection",
    "PhaseSection",
    "RandAugment",
    "Recipe",
    "TrainSection",
    "WeightsFile",
    "default_of",
]


class Recipe(Section):
    """A whole recipe. :func:`finetune.recipe.load.load_recipe` reads one from a file."""

    seed: Seed = Field(0, description="Seed of all randomness: splits, order, augmentation, head, dropout.")
    data: DataSection = Field(description="The images, their splits, and how they are resized.")
    model: ModelSection = Field(description="The source network and the new head.")
    train: TrainSection = Field(default_factory=TrainSection, description="How the network is trained.")
    cache: CacheSection = Field(
        default_factory=CacheSection,
        description="Where features of frozen layers and decoded images are cached. Caching never changes "
        "the result.",
    )

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        raise_conflicts(solved_head_conflicts(self.train, self.model.head))
        return self

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        # Frozen instances are written once, here, before anyone has seen them.
        train = resolve_train(self.train, from_scratch=self.model.weights == "none")
        object.__setattr__(self, "train", train)
        if self.data.split_seed == "auto":
            object.__setattr__(self, "data", self.data.model_copy(update={"split_seed": self.seed}))
        return self
