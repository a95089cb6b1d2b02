"""``finetune recipe``: write, check and print recipes without training."""

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli import options, output
from finetune.cli.options import flag
from finetune.errors import RecipeError, printable

recipe_app = typer.Typer(help="Write, check and print recipes, without training.", no_args_is_help=True)


@recipe_app.command()
def show(
    file: Annotated[Path, typer.Argument(help="The recipe file.", metavar="FILE")],
    resolved: Annotated[bool, flag("--resolved", "Print every key, with the defaults filled in.")] = False,
    set_: options.Set = None,
) -> None:
    """Print a recipe as it is read: the keys that it gives or, with --resolved, all keys."""
    from finetune.recipe.load import dump_recipe, given_recipe, load_recipe

    changes = set_ or []
    text = dump_recipe(load_recipe(file, changes)) if resolved else given_recipe(file, changes)
    output.data(text.removesuffix("\n"))


@recipe_app.command()
def validate(
    recipes: Annotated[list[Path], typer.Argument(help="Recipe files.", metavar="FILE...")],
) -> None:
    """Check recipes. Prints 'ok FILE', or every problem of a file; exits with 2 if there is any."""
    from finetune.recipe.load import load_recipe

    problems: list[str] = []
    for file in recipes:
        try:
            found = load_recipe(file)
        except RecipeError as error:
            problems += error.problems
        else:
            output.data(f"ok {printable(file)}")
            for warning in found.warnings:
                output.warn(f"{printable(file)}: {warning}")
    if problems:
        raise RecipeError(problems)


@recipe_app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors and other tools."""
    from finetune.recipe.load import json_schema

    output.data(json_schema().removesuffix("\n"))


@recipe_app.command()
def new(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write to a new file instead of printing."),
    ] = None,
) -> None:
    """Print a commented starter recipe, or write it to a new file."""
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
