"""``finetune cache``: features of frozen layers and decoded images that are kept on disk."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import output, table
from finetune.errors import printable

if TYPE_CHECKING:
    from finetune.data.cache.contents import CachedFolder

cache_app = typer.Typer(
    help="Look at what is kept on disk (features, decoded images), or remove it.",
    no_args_is_help=True,
)


@cache_app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What is kept, and how much room it takes."""
    from finetune.data.cache.contents import list_cached
    from finetune.data.cache.folder import cache_folder

    found = list_cached()
    if as_json:
        entries = [
            {
                "kind": each.kind,
                "folder": str(each.folder),
                "bytes": each.nbytes,
                "used": round(each.used),
                **_what(each),
            }
            for each in found
        ]
        total = sum(each.nbytes for each in found)
        output.data(json.dumps({"folder": str(cache_folder()), "bytes": total, "kept": entries}, indent=2))
        return
    if found:
        rows = [
            (
                each.kind,
                _in_words(each),
                time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used)),
                _megabytes(each.nbytes),
            )
            for each in found
        ]
        columns = [("kept", False), ("of", False), ("last used", False)]
        table.show([*columns, ("size", True)], rows)
    size = _megabytes(sum(each.nbytes for each in found))
    number = "1 set" if len(found) == 1 else f"{len(found)} sets"
    output.data(f"{printable(cache_folder())}: {size} in {number}")


@cache_app.command()
def clear(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Remove all that is kept. It is computed again when it is needed; fetched data and weights stay."""
    from finetune.data.cache.contents import clear_cache
    from finetune.data.cache.folder import cache_folder

    freed = clear_cache()
    if as_json:
        output.data(json.dumps({"folder": str(cache_folder()), "freed": freed}))
    else:
        output.data(f"{printable(cache_folder())}: {_megabytes(freed)} freed")


def _what(kept: "CachedFolder") -> dict[str, Any]:
    """What is kept there; question marks where its description is gone."""
    about = kept.about
    if kept.kind == "images":
        return {name: about.get(name) for name in ("source", "shorter", "image_size")}
    return {
        "backbone": about.get("backbone", "?"),
        "layers": about.get("layers", "?"),
        "augmented": about.get("augment") is not None,
    }


def _in_words(kept: "CachedFolder") -> str:
    what = _what(kept)
    if kept.kind == "features":
        looks = "augmented" if what["augmented"] else "plain"
        return f"{what['backbone']}, {what['layers']} frozen layers, {looks} images"
    size = "whole" if what["shorter"] is None else f"shorter side {what['shorter']} px at most"
    if what["image_size"] is not None:
        size = f"{what['image_size']} x {what['image_size']} px"
    return f"{what['source'] or '?'}, {size}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
