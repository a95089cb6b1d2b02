"""``finetune cache``: the features of frozen layers and the decoded images that are cached on disk."""

import time
from typing import TYPE_CHECKING, Any

import typer

from finetune.cli import options, output
from finetune.errors import printable

if TYPE_CHECKING:
    from finetune.data.cache.contents import CachedFolder

cache_app = typer.Typer(
    help="List or remove what is cached on disk: features and decoded images.",
    no_args_is_help=True,
)


@cache_app.command()
def info(as_json: options.Json = False) -> None:
    """List what is cached, with its size."""
    from finetune.data.cache.contents import cache_folder, list_cached

    found = list_cached()
    if as_json:
        entries = [
            {
                "kind": each.kind,
                "folder": str(each.folder),
                "bytes": each.nbytes,
                "used": round(each.used),
                **_describe(each),
            }
            for each in found
        ]
        total = sum(each.nbytes for each in found)
        output.json_data({"folder": str(cache_folder()), "bytes": total, "kept": entries}, indent=2)
        return
    if found:
        output.table(
            [
                {
                    "cached": each.kind,
                    "of": _in_words(each),
                    "last used": time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used)),
                    ">size": _megabytes(each.nbytes),
                }
                for each in found
            ]
        )
    size = _megabytes(sum(each.nbytes for each in found))
    number = "1 set" if len(found) == 1 else f"{len(found)} sets"
    output.data(f"{printable(cache_folder())}: {size} in {number}")


@cache_app.command()
def clear(as_json: options.Json = False) -> None:
    """Remove all cached features and images; they are computed again when needed. Downloads stay."""
    from finetune.data.cache.contents import cache_folder, clear_cache

    freed = clear_cache()
    if as_json:
        output.json_data({"folder": str(cache_folder()), "freed": freed})
    else:
        output.data(f"{printable(cache_folder())}: {_megabytes(freed)} freed")


def _describe(cached: "CachedFolder") -> dict[str, Any]:
    """Describe a cache entry in JSON; question marks where its own description is gone."""
    about = cached.about
    if cached.kind == "images":
        return {name: about.get(name) for name in ("source", "shorter", "image_size")}
    return {
        "backbone": about.get("backbone", "?"),
        "layers": about.get("layers", "?"),
        "augmented": about.get("augment") is not None,
    }


def _in_words(cached: "CachedFolder") -> str:
    what = _describe(cached)
    if cached.kind == "features":
        views = "augmented" if what["augmented"] else "plain"
        return f"{what['backbone']}, {what['layers']} frozen layers, {views} images"
    size = "whole" if what["shorter"] is None else f"shorter side {what['shorter']} px at most"
    if what["image_size"] is not None:
        size = f"{what['image_size']} x {what['image_size']} px"
    return f"{what['source'] or '?'}, {size}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
