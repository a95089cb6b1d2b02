"""Warnings about recipes that are valid but probably not what the user wants."""

from finetune.recipe.schema import Recipe


def remarks(recipe: Recipe) -> list[str]:
    """One warning per finding, each begins with the keys it is about."""
    train = recipe.train
    found = []
    if train.sampler == "balanced" and train.class_weights == "balanced":
        found.append(
            "train.sampler: balanced and train.class_weights: balanced correct unequal classes twice: "
            "rare classes are drawn more often and weigh more each time. Keep one of the two."
        )
    return found
