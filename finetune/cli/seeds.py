"""``finetune train RECIPE --seeds N``: the same recipe under several seeds, and the spread of the results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli import output
from finetune.errors import printable

if TYPE_CHECKING:
    from finetune.strategy.experiments.repeat import RunOptions
    from finetune.strategy.experiments.spread import Spread
    from finetune.training.fit import Result


def train_several(
    recipe: Path,
    run_dir: Path | None,
    overrides: Sequence[str],
    number: int,
    options: "RunOptions",
    *,
    vary_split: bool = False,
) -> None:
    """Train ``recipe`` ``number`` times. Print each run's numbers, and their mean, range and interval."""
    from finetune.recipe.load import load_recipe
    from finetune.training.run.claim import place_of

    place = Path(place_of(recipe, run_dir))
    wanted = load_recipe(recipe, overrides)
    from finetune.cli.progress import open_progress
    from finetune.strategy.experiments.repeat import train_seeds

    with open_progress() as progress:
        results = list(train_seeds(wanted, place, number, options, progress.announce, vary_split=vary_split))
    show_results(results)
    if vary_split:
        output.note("The runs differ in their training and in their splits.")
    else:
        output.note("The runs differ in their training alone: all have the same splits (--vary-split).")


def show_results(results: "Sequence[Result]") -> None:
    """Print one row per run, then the spread on test, or on val where there is no test split."""
    from finetune.strategy.experiments.spread import of_repeats

    output.table(
        [
            {
                "run": result.run.name,
                ">best epoch": str(result.best.epoch),
                ">val top-1": output.percent(result.best.val_top1),
                ">test top-1": "-" if result.test is None else output.percent(result.test.top1),
                ">n": "" if result.test is None else f"{result.test.n:,}",
            }
            for result in results
        ]
    )
    tested = [result.test.top1 for result in results if result.test is not None]
    measured = "test" if tested else "val"
    output.data(spread_line(measured, of_repeats(tested or [result.best.val_top1 for result in results])))
    if not tested:
        output.warn("no test split; these numbers are on val, which chose the checkpoints")
    output.data(f"runs         {printable(results[0].run.parent)}")


def spread_line(measured: str, spread: "Spread") -> str:
    """``test top-1   93.1 %, range 92.0 to 94.2, 95 % interval of the mean [90.4 to 95.8] (5 runs)``."""
    line = f"{measured} top-1".ljust(13) + output.percent(spread.mean)
    if spread.n == 1:
        return f"{line} (1 run: no range)"
    return (
        f"{line}, range {100 * spread.low:.1f} to {100 * spread.high:.1f}, {spread.interval('runs')} "
        f"({spread.n} runs)"
    )
