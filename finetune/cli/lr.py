"""``finetune lr RECIPE``: the learning-rate range test."""

import json
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli import output
from finetune.cli.run_options import DeviceOption, show_progress
from finetune.errors import printable


def lr(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)],
    steps: Annotated[
        int, typer.Option(min=10, max=100_000, help="Optimizer steps, if the loss does not explode.")
    ] = 100,
    low: Annotated[
        float | None,
        typer.Option(
            min=1e-12,
            max=100.0,
            help="The body's rate at the first step.",
            show_default="1e-6 AdamW, 1e-5 SGD",
        ),
    ] = None,
    high: Annotated[
        float | None,
        typer.Option(
            min=1e-12, max=100.0, help="The body's rate at the last step.", show_default="1 AdamW, 10 SGD"
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Where the plot goes.", show_default="runs/NAME-lr.png"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: DeviceOption = None,
) -> None:
    """Raise the learning rate until the loss explodes, and suggest one, for the recipe's first phase.

    The rate is the body's; the head's is head_lr_mult times that. No run is made, and no weight is kept.
    """
    from finetune.recipe.load import load_recipe

    wanted = load_recipe(recipe, set_ or [])
    from finetune.disk.figure import check_figure
    from finetune.strategy.experiments.lr_range import draw, range_test

    target = plot or Path("runs") / f"{recipe.stem}-lr.png"
    check_figure(target)
    test = range_test(
        wanted,
        steps=steps,
        low=low,
        high=high,
        device=device,
        watch=lambda numbers: show_progress(numbers, "step", steps),
    )
    draw(test, recipe.name, target)
    phase = wanted.train.phases[0]
    if as_json:
        output.data(
            json.dumps(test.to_dict() | {"recipe_lr": phase.lr, "plot": str(target)}, allow_nan=False)
        )
        return
    output.data(f"suggestion  {test.suggestion:.2g}  (train.phases.0.lr; the recipe has {phase.lr:g})")
    output.data(f"tested      {test.lr[0]:.2g} to {test.lr[-1]:.2g} in {len(test.lr)} steps")
    output.data(f"plot        {printable(target)}")
