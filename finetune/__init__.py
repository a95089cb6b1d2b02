"""Carry a network trained on a large source data set over to your own images.

Importing this package imports nothing heavy: the public names below are loaded when first used.
"""

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "finetune.recipe.schema",
    "load_recipe": "finetune.recipe.load",
    "fit": "finetune.training.fit",
    "load_trained": "finetune.training.trained",
    "FinetuneError": "finetune.errors",
}

__all__ = ["FinetuneError", "Recipe", "__version__", "fit", "load_recipe", "load_trained"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'finetune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
