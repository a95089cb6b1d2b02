"""``finetune lr RECIPE``: the learning-rate range test."""

from functools import partial
from pathlib import Path
from typing import Annotated

from finetune.cli import options, output
from finetune.cli.options import option
from finetune.errors import printable

RATE = {"min": 1e-12, "max": 100.0}


def lr(
    recipe: options.RecipeFile,
    steps: Annotated[
        int,
        option("Optimizer steps; fewer if the loss explodes earlier.", "N", True, min=10, max=100_000),
    ] = 100,
    low: Annotated[
        float | None, option("lr, the body's rate, at the first step.", "LR", "1e-6 AdamW, 1e-5 SGD", **RATE)
    ] = None,
    high: Annotated[
        float | None, option("lr, the body's rate, at the last step.", "LR", "1 AdamW, 10 SGD", **RATE)
    ] = None,
    plot: Annotated[Path | None, options.plot("Draw loss against learning rate.", "runs/NAME-lr.png")] = None,
    set_: options.Set = None,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Suggest a learning rate: raise it step by step until the loss explodes (range test).

    Tests the recipe's first phase. lr is the body's rate; the head's is head_lr_mult times that. Where the
    body is frozen, the plot shows the head's rate. No weights are saved.
    """
    from finetune.recipe.load import load_recipe

    wanted = load_recipe(recipe, set_ or [])
    from finetune.cli.progress import open_progress
    from finetune.disk.figure import check_figure
    from finetune.strategy.experiments.lr_range import draw, range_test

    target = plot or Path("runs") / f"{recipe.stem}-lr.png"
    check_figure(target)
    with open_progress() as progress:
        test = range_test(
            wanted,
            steps=steps,
            low=low,
            high=high,
            device=device,
            progress=partial(progress.reporter.work, "step"),
        )
    draw(test, recipe.name, target)
    phase = wanted.train.phases[0]
    if as_json:
        output.json_data(test.to_dict() | {"recipe_lr": phase.lr, "plot": str(target)}, allow_nan=False)
        return
    output.data(f"suggestion  {test.suggestion:.2g}  (train.phases.0.lr; the recipe has {phase.lr:g})")
    if test.group == "head":
        output.data(
            f"            the body is frozen; the head learns at {test.head_lr_mult:g} times that "
            f"(head_lr_mult), {test.factor * test.suggestion:.2g}"
        )
    output.data(
        f"because     the smoothed loss falls longest from {test.fall_from:.2g} to {test.fall_to:.2g}; the "
        "suggestion is two thirds into that fall"
    )
    output.data(f"tested      {test.lr[0]:.2g} to {test.lr[-1]:.2g} in {len(test.lr)} steps")
    output.data(f"plot        {printable(target)}")
