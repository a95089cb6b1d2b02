"""The command ``finetune``: its sub-commands, and how an error ends it."""

import sys
from typing import Annotated

import typer

import finetune
from finetune.cli import output
from finetune.cli.advise import advise
from finetune.cli.backbones import backbones
from finetune.cli.cache import cache_app
from finetune.cli.compare import compare
from finetune.cli.cv import cv
from finetune.cli.doctor import doctor
from finetune.cli.eval import evaluate
from finetune.cli.export import export
from finetune.cli.layers import layers
from finetune.cli.lr import lr
from finetune.cli.predict import predict
from finetune.cli.probe import probe
from finetune.cli.process import settle_process
from finetune.cli.rank import rank
from finetune.cli.recipe import recipe_app
from finetune.cli.train import train
from finetune.errors import FinetuneError, RecipeError

app = typer.Typer(
    help="Carry a pretrained network over to your own pictures, and know how good it really is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which a user comes to them.
app.command()(doctor)
app.command()(advise)
app.command()(probe)
app.command()(rank)
app.command()(lr)
app.command()(train)
app.command()(cv)
app.command()(compare)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(export)
app.command()(layers)
app.command()(backbones)
app.add_typer(recipe_app, name="recipe")
app.add_typer(cache_app, name="cache")


def _version(asked: bool) -> None:
    if asked:
        output.data(f"finetune {finetune.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    output.show_log()


def main() -> None:
    """Run the command line. An expected error is one message on stderr and its exit code, no traceback."""
    settle_process()
    try:
        app()
    except FinetuneError as error:
        # A recipe's lines begin with their place, FILE:LINE:COLUMN, which editors and terminals follow.
        output.note(str(error) if isinstance(error, RecipeError) else f"error: {error}")
        sys.exit(error.exit_code)
