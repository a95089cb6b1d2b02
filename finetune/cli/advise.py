"""``finetune advise``: which fine-tuning fits these images, measured and not guessed."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import output
from finetune.cli.run_options import DeviceOption, keeping_features
from finetune.errors import printable
from finetune.recipe import catalog

if TYPE_CHECKING:
    from finetune.recipe.schema import Recipe
    from finetune.strategy.advice.advise import Advice

WIDTH = 110


def advise(
    source: Annotated[
        str,
        typer.Argument(
            help="What a recipe's data.source may be: a folder, a CSV file, a known set.", show_default=False
        ),
    ],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The source network.", show_default=catalog.DEFAULT_BACKBONE),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-o", metavar="FILE.yaml", help="Write the advised recipe there."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the recipe that is there.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of data, model or cache. Repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all that was measured.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Measure the images, say which fine-tuning fits them and why, and write the recipe.

    Size, similarity to the source, what the features are worth at several depths, and which augmentations
    these images bear are measured on training images alone; no network is trained.
    """
    if backbone is not None and not backbone.startswith(catalog.TIMM):
        catalog.backbone(backbone)
    if recipe is not None:
        from finetune.disk.outputs import check_new_file

        check_new_file(recipe, overwrite=overwrite, option="--overwrite replaces it. ")
    advice = measured(asked(source, backbone, set_ or []), device)
    for text in advice.facts.notes:
        output.note(text)
    if as_json:
        output.data(json.dumps(advice.to_dict(), indent=2))
    else:
        show(advice)
    if recipe is not None:
        from finetune.disk.outputs import write_output

        write_output(recipe, advice.recipe.encode("utf-8", "surrogateescape"))
        name = printable(recipe)
        output.note(f"\nrecipe       {name}\nNext:        finetune train {name}")
    elif not as_json:
        output.data("")
        output.data(advice.recipe.rstrip("\n"))


def asked(source: str, backbone: str | None, overrides: list[str]) -> "Recipe":
    """The recipe to advise on, and a line that says on which network, before anything is looked at."""
    from finetune.strategy.advice.advise import base_recipe

    base = base_recipe(source, backbone or catalog.DEFAULT_BACKBONE, overrides)
    name = base.model.backbone
    given = backbone is not None or name != catalog.DEFAULT_BACKBONE
    default = "the default, whose weights come with the toolkit; --set model.backbone=NAME takes another"
    output.note(f"backbone     {printable(name)} ({'as asked for' if given else default})")
    return base


def measured(base: "Recipe", device: str | None) -> "Advice":
    """The advice, with its progress shown."""
    from finetune.cli.progress import open_progress
    from finetune.strategy.advice import advise as strategy

    with keeping_features(base.cache.where), open_progress(None) as progress:
        return strategy.advise(base, device=device, tell=progress.passing)


def show(advice: "Advice") -> None:
    """The reasons, wrapped."""
    width = max(len(heading) for heading, _ in advice.reasons)
    before = ""
    for heading, sentence in advice.reasons:
        first = "" if heading == before else heading
        indent = " " * (width + 2)
        output.data(
            textwrap.fill(sentence, WIDTH, initial_indent=f"{first:<{width}}  ", subsequent_indent=indent)
        )
        before = heading
    facts = advice.facts
    if facts.cached:
        output.note(f"features of {facts.cached:,} of {facts.train:,} training images were in the cache")
