"""The table of sub-commands: each name with its function, help line and panel.

Only the sub-command that is called gets loaded. The others appear in ``finetune --help`` with the help line
of this table, so that it need not load every file.
"""

from collections.abc import Container
from importlib import import_module
from typing import NamedTuple

import typer

BEFORE, TRAIN, USE, LOOK_UP = "Before training", "Training", "Using a trained network", "Reference"


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        function: the name of a function, or of a ``typer.Typer``, in ``finetune/cli/NAME.py``.
        panel: the heading above it in the help.
        help: the first line of its own help.
    """

    function: str
    panel: str
    help: str


# In the order in which a user needs them.
COMMANDS = {
    "doctor": Command(
        "doctor",
        BEFORE,
        "Check your images before training: broken files, duplicates, leaks between splits, small classes.",
    ),
    "advise": Command(
        "advise",
        BEFORE,
        "Measure your images and advise a recipe: which layers to freeze, for how long, and why.",
    ),
    "probe": Command(
        "probe",
        BEFORE,
        "Try simple classifiers on a network's frozen features: SVM, logistic regression, neighbours, means.",
    ),
    "rank": Command(
        "rank",
        BEFORE,
        "Rank source networks by how well a linear classifier on their frozen features does on your images.",
    ),
    "lr": Command(
        "lr",
        BEFORE,
        "Suggest a learning rate: raise it step by step until the loss explodes (range test).",
    ),
    "train": Command(
        "train",
        TRAIN,
        "Train a network as RECIPE says, or as `finetune advise` would advise for IMAGES.",
    ),
    "cv": Command(
        "cv",
        TRAIN,
        "Cross-validate a recipe: train once per fold and test each image with the network that never saw "
        "it.",
    ),
    "compare": Command(
        "compare",
        TRAIN,
        "Compare runs or recipes on the same images: accuracies, their difference, McNemar's test, cost.",
    ),
    "eval": Command(
        "evaluate",
        USE,
        "Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and calibration.",
    ),
    "predict": Command("predict", USE, "Predict the classes of images with a run or an exported ONNX file."),
    "export": Command(
        "export", USE, "Export a trained network to one file, with its class names and preprocessing."
    ),
    "layers": Command(
        "layers",
        LOOK_UP,
        "List the layers of a backbone in the order in which they run: what `freeze` counts in a recipe.",
    ),
    "backbones": Command(
        "backbones", LOOK_UP, "List the backbones that can be fine-tuned, with their cost and accuracy."
    ),
    "recipe": Command("recipe_app", LOOK_UP, "Write, check and print recipes, without training."),
    "cache": Command(
        "cache_app", LOOK_UP, "List or remove what is cached on disk: features and decoded images."
    ),
}


def add_commands(app: typer.Typer, loaded: Container[str]) -> None:
    """Add every sub-command to ``app``; those that ``loaded`` names with their functions."""
    for name, command in COMMANDS.items():
        if name not in loaded:
            app.command(name, help=command.help, rich_help_panel=command.panel)(_not_loaded)
            continue
        found = getattr(import_module(f"finetune.cli.{name}"), command.function)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, rich_help_panel=command.panel)
        else:
            app.command(name, rich_help_panel=command.panel)(found)


def _not_loaded() -> None:
    raise AssertionError("a sub-command runs that was not loaded")
