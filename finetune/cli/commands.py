"""The table of sub-commands: each name with its help line, under the panel that shows it.

Only the sub-command that is called gets loaded. The others appear in ``finetune --help`` with the help line
of this table, so that it need not load every file.
"""

from collections.abc import Container
from importlib import import_module

import typer

# Panels and commands in the order in which a user needs them. A help line is the first of the command's own.
PANELS = {
    "Before training": {
        "doctor": "Check your images before training: broken files, duplicates, leaks between splits, small "
        "classes.",
        "relabel": "Write a CSV source with corrected labels, from the reviewed table of `finetune doctor`.",
        "advise": "Measure your images and advise a recipe: which layers to freeze, for how long, and why.",
        "probe": "Try simple classifiers on a network's frozen features: SVM, logistic regression, "
        "neighbours, means.",
        "rank": "Rank source networks by how well a linear classifier on their frozen features does on your "
        "images.",
        "lr": "Suggest a learning rate: raise it step by step until the loss explodes (range test).",
    },
    "Training": {
        "train": "Train a network as RECIPE says, or as `finetune advise` would advise for IMAGES.",
        "cv": "Cross-validate a recipe: train once per fold and test each image with the network that never "
        "saw it.",
        "compare": "Compare runs or recipes on the same images: accuracies, their difference, McNemar's "
        "test, cost.",
    },
    "Using a trained network": {
        "eval": "Measure accuracy with its 95 % interval, loss, per-class metrics, confusion and "
        "calibration.",
        "threshold": "Keep a threshold or costs with a run: predict and exports decide by it. Alone, show "
        "what is kept.",
        "predict": "Predict the classes of images with a run or an exported ONNX file.",
        "report": "Write one HTML page about a run: how good it is, where it fails, and what it looks at.",
        "explain": "Show what a network looks at: heat-maps, what its layers have learned, nearest images.",
        "export": "Export a trained network to one file, with its class names and preprocessing.",
    },
    "Reference": {
        "layers": "List the layers of a backbone in the order in which they run: what `freeze` counts in a "
        "recipe.",
        "backbones": "List the backbones that can be fine-tuned, with their cost and accuracy.",
        "recipe": "Write, check and print recipes, without training.",
        "cache": "List or remove what is cached on disk: features and decoded images.",
    },
}
COMMANDS = [name for commands in PANELS.values() for name in commands]
# What ``finetune/cli/NAME.py`` calls the command, where it is not NAME: a builtin, or groups of commands.
_FUNCTIONS = {"eval": "evaluate", "recipe": "recipe_app", "cache": "cache_app"}


def add_commands(app: typer.Typer, loaded: Container[str]) -> None:
    """Add every sub-command to ``app``; those that ``loaded`` names with their functions."""
    for panel, commands in PANELS.items():
        for name, help_line in commands.items():
            if name not in loaded:
                app.command(name, help=help_line, rich_help_panel=panel)(_not_loaded)
                continue
            found = getattr(import_module(f"finetune.cli.{name}"), _FUNCTIONS.get(name, name))
            if isinstance(found, typer.Typer):
                app.add_typer(found, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel)(found)


def _not_loaded() -> None:
    raise AssertionError("a sub-command runs that was not loaded")
