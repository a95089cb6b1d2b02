"""What lies in a folder and is not read: one sentence for each kind, the same whoever tells of it."""

from collections.abc import Mapping

PASSED_OVER = "files that are no images were passed over"
OUTSIDE = "images outside of the class folders were left out"
KINDS_SHOWN = 5


def passed_over(name: str, kinds: Mapping[str, int]) -> str:
    """Of files that are no images, anywhere in the folder called ``name``.

    Args:
        kinds: extension -> files; the most frequent ones are named.
    """
    most = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    said = [f"{kind} {kinds[kind]}" for kind in most[:KINDS_SHOWN]]
    if rest := sum(kinds[kind] for kind in most[KINDS_SHOWN:]):
        said.append(f"others {rest}")
    return f"{name}: {PASSED_OVER} ({', '.join(said)})"


def outside(name: str, count: int) -> str:
    """Of images that lie directly in the folder called ``name``, which holds class folders."""
    return f"{name}: {OUTSIDE} ({count})"


def kind_of(name: str) -> str:
    """Which kind of file a name tells: its extension."""
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if stem and dot and extension else "no extension"
