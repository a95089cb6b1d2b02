"""Fine-tune a pretrained network on your own images, and measure how good it is.

``docs/python.md`` describes the names below. Importing this package imports nothing heavy: each name is
loaded when it is first used.
"""

from finetune.version import __version__

__all__ = [
    "Advice", "EvaluationResult", "Explanation", "FinetuneError", "Model", "Prediction", "ProgressEvent",
    "Recipe", "Resume", "Run", "__version__", "advise", "draw_layers", "load", "load_recipe", "report",
    "train",
]  # fmt: skip

# Read by type checkers alone; `typing` would take longer to load than all else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from finetune.api.advice import Advice, advise
    from finetune.api.evaluation import EvaluationResult
    from finetune.api.layers import draw_layers
    from finetune.api.model import Model, load
    from finetune.api.progress import ProgressEvent
    from finetune.api.recipes import load_recipe
    from finetune.api.report import report
    from finetune.api.training import Resume, Run, train
    from finetune.deploy.predict import Prediction
    from finetune.errors import FinetuneError
    from finetune.explain.heatmaps.explanations import Explanation
    from finetune.recipe.schema import Recipe
else:
    _MODULES = {
        "api.advice": ("Advice", "advise"),
        "api.evaluation": ("EvaluationResult",),
        "api.layers": ("draw_layers",),
        "api.model": ("Model", "load"),
        "api.progress": ("ProgressEvent",),
        "api.recipes": ("load_recipe",),
        "api.report": ("report",),
        "api.training": ("Resume", "Run", "train"),
        "deploy.predict": ("Prediction",),
        "errors": ("FinetuneError",),
        "explain.heatmaps.explanations": ("Explanation",),
        "recipe.schema": ("Recipe",),
    }

    def __getattr__(name):
        for module, names in _MODULES.items():
            if name in names:
                from importlib import import_module

                return getattr(import_module(f"finetune.{module}"), name)
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
