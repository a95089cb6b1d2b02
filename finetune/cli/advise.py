"""``finetune advise``: which fine-tuning fits these images, from measurements."""

from pathlib import Path
from typing import Annotated

import typer

from finetune.api.advice import advise as measure
from finetune.cli import options, output
from finetune.cli.options import option
from finetune.errors import printable
from finetune.recipe import catalog


def advise(
    source: options.Source,
    backbone: Annotated[str | None, option("The source network.", "NAME", catalog.DEFAULT_BACKBONE)] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            "-o",
            metavar="FILE.yaml",
            help="Write the advised recipe to a file.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    set_: options.Set = None,
    as_json: options.Json = False,
    device: options.Device = None,
) -> None:
    """Measure your images and advise a recipe: which layers to freeze, for how long, and why.

    Measures the number of training images, their similarity to the source data, the features at several
    depths, and the augmentations that suit these images. No network is trained. --set takes keys of data,
    model and cache.
    """
    if recipe is not None:
        from finetune.disk.outputs import check_new_file

        check_new_file(recipe, overwrite=overwrite, option="--overwrite replaces it. ")
    if backbone is not None:
        catalog.check_backbone(backbone)  # an unknown name is refused before torch is loaded
    from finetune.cli.progress import open_progress, show_advice

    with open_progress(features_remain=True) as progress:
        advice = measure(source, backbone=backbone, overrides=set_, device=device, progress=progress)
    if as_json:
        output.json_data(advice.to_dict(), indent=2)
    else:
        show_advice(advice.reasons, advice.facts.cached, advice.facts.train)
    if recipe is not None:
        advice.save(recipe, overwrite=True)
        name = printable(recipe)
        output.note(f"\nrecipe       {name}\nNext:        finetune train {name}")
    elif not as_json:
        output.data("")
        output.data(advice.recipe_text.rstrip("\n"))
