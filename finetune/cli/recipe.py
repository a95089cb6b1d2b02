"""``finetune recipe``: look at recipes without running them."""

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli import output
from finetune.errors import RecipeError, printable

recipe_app = typer.Typer(
    name="recipe", help="Write, check and print recipes, without running them.", no_args_is_help=True
)


@recipe_app.command()
def show(
    file: Annotated[Path, typer.Argument(help="The recipe file.", metavar="FILE")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key, defaults filled in.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as train.phases.0.lr=1e-3."),
    ] = None,
) -> None:
    """Print a recipe as it is understood: the keys given or, with --resolved, all of them."""
    from finetune.recipe.load import dump_recipe, given_recipe, load_recipe

    changes = overrides or []
    text = dump_recipe(load_recipe(file, changes)) if resolved else given_recipe(file, changes)
    output.data(text.removesuffix("\n"))


@recipe_app.command()
def validate(
    recipes: Annotated[list[Path], typer.Argument(help="Recipe files.", metavar="FILE...")],
) -> None:
    """Check recipes: 'ok FILE' for each sound one, every fault of the others, exit code 2 if there is one."""
    from finetune.recipe.load import load_recipe
    from finetune.recipe.remarks import remarks

    problems: list[str] = []
    for file in recipes:
        try:
            found = load_recipe(file)
        except RecipeError as error:
            problems += error.problems
        else:
            output.data(f"ok {printable(file)}")
            for remark in remarks(found):
                output.warn(f"{printable(file)}: {remark}")
    if problems:
        raise RecipeError(problems)


@recipe_app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and other checkers."""
    from finetune.recipe.load import json_schema

    output.data(json_schema().removesuffix("\n"))


@recipe_app.command()
def new(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write to this new file instead of printing."),
    ] = None,
) -> None:
    """Print a commented starter recipe, or write it to a file that does not exist yet."""
    from importlib.resources import files

    text = files("finetune.recipe").joinpath("starter.yaml").read_text(encoding="utf-8")
    if out is None:
        output.data(text.removesuffix("\n"))
        return
    from finetune.disk.outputs import check_new_file, write_output

    check_new_file(out)
    write_output(out, text.encode())
    name = printable(out)
    output.note(f"wrote {name}; check it with: finetune recipe validate {name}")
