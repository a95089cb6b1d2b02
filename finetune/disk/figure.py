"""Make matplotlib figures, and write them to files that users name."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.disk.outputs import check_output, write_output
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The format of a file name without an extension.
FORMAT = "png"


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure of the given size in inches. It needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_chart(width: float, height: float, title: str) -> "tuple[Figure, Axes]":
    """Make a figure with one pair of axes. Dollar signs in ``title`` do not start a formula."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    axes.set_title(printable(title), parse_math=False)
    return figure, axes


def check_figure(path: Path) -> None:
    """Check before a long computation that a figure can be written to ``path``.

    Raises:
        UserError: it cannot be written, or matplotlib does not know its extension.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in known:
        raise UserError(
            f"{printable(path)}: unknown figure format. Use one of the extensions "
            f"{', '.join(f'.{each}' for each in sorted(known))}."
        )
    check_output(path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write ``figure`` to ``path`` in the format of its extension.

    Raises:
        UserError: as :func:`check_figure`.
        SaveError: the disk is full or failing.
    """
    check_figure(path)
    content = io.BytesIO()
    figure.savefig(content, format=_format(path), dpi=120)
    write_output(path, content.getvalue())


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".") or FORMAT
