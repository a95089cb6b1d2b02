"""``finetune advise``: which fine-tuning fits these images, from measurements."""

import json
from pathlib import Path
from typing import Annotated

import typer

from finetune.api.advice import advise as measure
from finetune.cli import output
from finetune.cli.options import DeviceOption, JsonOption, OverwriteOption, SetOption, SourceArgument
from finetune.errors import printable
from finetune.recipe import catalog


def advise(
    source: SourceArgument,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The source network.", show_default=catalog.DEFAULT_BACKBONE),
    ] = None,
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
    overwrite: OverwriteOption = False,
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = None,
) -> None:
    """Measure your images and advise a recipe: which layers to freeze, for how long, and why.

    Looks at the number of training images, their similarity to the source data, the features at several
    depths, and the augmentations that these images bear. No network is trained. --set takes keys of data,
    model and cache.
    """
    if recipe is not None:
        from finetune.disk.outputs import check_new_file

        check_new_file(recipe, overwrite=overwrite, option="--overwrite replaces it. ")
    if backbone is not None:
        catalog.check_backbone(backbone)  # an unknown name is refused before torch is loaded
    from finetune.cli.progress import features_remain, open_progress, show_advice

    with features_remain(), open_progress() as progress:
        advice = measure(source, backbone=backbone, overrides=set_, device=device, progress=progress)
    if as_json:
        output.data(json.dumps(advice.to_dict(), indent=2))
    else:
        show_advice(advice.reasons, advice.facts.cached, advice.facts.train)
    if recipe is not None:
        advice.save(recipe, overwrite=True)
        name = printable(recipe)
        output.note(f"\nrecipe       {name}\nNext:        finetune train {name}")
    elif not as_json:
        output.data("")
        output.data(advice.recipe_text.rstrip("\n"))
