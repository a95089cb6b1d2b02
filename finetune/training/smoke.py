"""``--smoke``: run any recipe in seconds, on a CPU and offline."""

from typing import Any

from finetune.recipe.catalog import DRAWN
from finetune.recipe.schema import DataSection, Recipe

SMOKE_BATCH_SIZE = 4
# The few drawn images do not allow more folds.
SMOKE_FOLDS = 3
# The data keys that also apply to drawn images. The others describe files and tables.
OF_THE_IMAGES = ("image_size", "resize", "resize_mode", "interpolation", "decode", "group_by")


def smoke_recipe(recipe: Recipe) -> Recipe:
    """``recipe`` on drawn images, with random weights, small batches and one epoch per phase.

    Everything else stays. If the recipe groups its images, the drawn images are grouped too.
    """
    phases = tuple(
        phase.model_copy(update={"epochs": 1, "warmup_epochs": min(phase.warmup_epochs or 0.0, 0.5)})
        for phase in recipe.train.phases
    )
    size, weights = recipe.train.batch_size, recipe.train.class_weights
    train = recipe.train.model_copy(
        update={
            "batch_size": SMOKE_BATCH_SIZE if size == "auto" else min(size, SMOKE_BATCH_SIZE),
            "phases": phases,
            "warmup_epochs": 0.0,
            # Weights by name are of classes that the drawn images do not have.
            "class_weights": weights if isinstance(weights, str) else "none",
        }
    )
    head = recipe.model.head.model_copy(update={"reuse": None})
    model = recipe.model.model_copy(update={"weights": "none", "head": head})
    same: dict[str, Any] = {name: getattr(recipe.data, name) for name in OF_THE_IMAGES}
    if (fold := recipe.data.fold) is not None:
        of = min(fold.of, SMOKE_FOLDS)
        same["fold"] = fold.model_copy(update={"number": fold.number % of, "of": of})
    data = DataSection(source=DRAWN, workers=0).model_copy(update=same)
    return recipe.model_copy(update={"train": train, "model": model, "data": data})
