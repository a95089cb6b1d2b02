"""``finetune cache``: the features of frozen layers that are kept on disk."""

import json
import time
from typing import Annotated, Any

import typer

from finetune.cli import output, table

cache_app = typer.Typer(
    help="Look at the features of frozen layers that are kept on disk, or remove them.", no_args_is_help=True
)


@cache_app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Where features are kept, of which networks, and how much room they take."""
    from finetune.features.kept import features_folder, list_kept

    found = list_kept()
    if as_json:
        entries = [
            {"folder": str(each.folder), "bytes": each.nbytes, "used": round(each.used), **_what(each.about)}
            for each in found
        ]
        total = sum(each.nbytes for each in found)
        output.data(json.dumps({"folder": str(features_folder()), "bytes": total, "kept": entries}, indent=2))
        return
    if found:
        rows = [
            (
                str(_what(each.about)["backbone"]),
                str(_what(each.about)["layers"]),
                "augmented" if _what(each.about)["augmented"] else "plain",
                time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used)),
                _megabytes(each.nbytes),
            )
            for each in found
        ]
        columns = [("backbone", False), ("frozen layers", True), ("pictures", False), ("last used", False)]
        table.show([*columns, ("size", True)], rows)
    size = _megabytes(sum(each.nbytes for each in found))
    number = "1 set" if len(found) == 1 else f"{len(found)} sets"
    output.data(f"{features_folder()}: {size} in {number} of features")


@cache_app.command()
def clear(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Remove all features that are kept. They are computed again when they are needed."""
    from finetune.features.kept import clear as remove_all
    from finetune.features.kept import features_folder

    freed = remove_all()
    if as_json:
        output.data(json.dumps({"folder": str(features_folder()), "freed": freed}))
    else:
        output.data(f"{features_folder()}: {_megabytes(freed)} freed")


def _what(about: dict[str, Any]) -> dict[str, Any]:
    """What a set of features is of; question marks where its description is gone."""
    return {
        "backbone": about.get("backbone", "?"),
        "layers": about.get("layers", "?"),
        "augmented": about.get("augment") is not None,
    }


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
