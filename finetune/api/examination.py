"""The doctor's examination of a source."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from finetune.api.progress import Reporter

if TYPE_CHECKING:
    from finetune.strategy.doctor.examine import Report


def examine(
    source: str, overrides: Sequence[str], reporter: Reporter, *, near_copies: bool = True
) -> "Report":
    """Examine every image of ``source``. Of ``overrides``, those of ``data`` say how the source is read.

    Args:
        near_copies: also search for near-duplicates.

    Raises:
        RecipeError: an override is wrong.
        DataError: the source does not exist or holds no image.
    """
    from finetune.data.dataset import SourceOptions
    from finetune.strategy.doctor import examine as doctor

    reading = SourceOptions()
    if of_data := [each for each in overrides if each.startswith("data.")]:
        from finetune.recipe.load import minimal_recipe
        from finetune.training.setup.prepare import reading_of

        reading = reading_of(minimal_recipe(source, "resnet18", overrides=of_data, name="doctor").data)
    return doctor.examine(source, reading, partial(reporter.work, "image"), near_copies=near_copies)
