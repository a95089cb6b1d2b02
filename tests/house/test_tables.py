"""The names that a recipe may use are the names in the tables of the code."""

from typing import Any, get_args

import pytest

from finetune.recipe.fields import Section
from finetune.recipe.schema import PhaseSection, TrainSection
from finetune.training.setup.plan import SOLVER
from finetune.training.steps.optimizer import OPTIMIZERS
from finetune.training.steps.schedule import SCHEDULES


def choices(section: type[Section], key: str) -> set[str]:
    """The names that a key allows, without ``null``."""
    annotation: Any = section.model_fields[key].annotation
    literals = [annotation, *get_args(annotation)]
    return {name for literal in literals for name in get_args(literal) if isinstance(name, str)}


@pytest.mark.parametrize("section", [TrainSection, PhaseSection])
def test_optimizers(section: type[Section]) -> None:
    assert choices(section, "optimizer") == {*OPTIMIZERS, SOLVER}


@pytest.mark.parametrize("section", [TrainSection, PhaseSection])
def test_schedules(section: type[Section]) -> None:
    assert choices(section, "schedule") == set(SCHEDULES)
