"""``--smoke``: any recipe in seconds, on a CPU, without a network."""

from finetune.recipe.schema import Recipe

SMOKE_BATCH_SIZE = 4


def shortened(recipe: Recipe) -> Recipe:
    """``recipe`` on drawn pictures, with random weights, small batches, one epoch a phase; the rest as is."""
    phases = tuple(
        phase.model_copy(update={"epochs": 1, "warmup_epochs": min(phase.warmup_epochs or 0.0, 0.5)})
        for phase in recipe.train.phases
    )
    train = recipe.train.model_copy(
        update={"batch_size": SMOKE_BATCH_SIZE, "phases": phases, "warmup_epochs": 0.0}
    )
    head = recipe.model.head.model_copy(update={"reuse": None})
    model = recipe.model.model_copy(update={"weights": "none", "head": head})
    # What says how the recipe's own source is read says nothing of drawn pictures.
    drawn = {"source": "drawn", "workers": 0, "split_column": None, "layout": "auto"}
    data = recipe.data.model_copy(update=drawn)
    return recipe.model_copy(update={"train": train, "model": model, "data": data})
