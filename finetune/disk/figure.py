"""Drawings that a user names, written as every other output is."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.disk.outputs import check_output, write_output
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of a name without an ending.
FORMAT = "png"


def check_figure(path: Path) -> None:
    """Find out early that no drawing can be written to ``path``.

    Raises:
        UserError: it cannot be written, or its ending is none that matplotlib knows.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if _format(path) not in known:
        raise UserError(
            f"{printable(path)}: cannot be written (its ending is no image's). Take one of "
            f"{', '.join(f'.{each}' for each in sorted(known))}."
        )
    check_output(path)


def write_figure(figure: "Figure", path: Path) -> None:
    """Write ``figure`` to ``path``; the format follows from the file's ending.

    Raises:
        UserError: ``path`` has to be somewhere else, or its ending is none that matplotlib knows.
        SaveError: the disk is full or failing.
    """
    check_figure(path)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=_format(path), dpi=120)
    write_output(path, drawn.getvalue())


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".") or FORMAT
