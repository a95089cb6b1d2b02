"""Make matplotlib figures in one style, and write them to files that users name.

Every figure of the project comes from here, so that fonts, grid, colours and sizes agree. Figures made from
the same numbers have the same bytes: no file holds a date or a version.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.disk.outputs import check_output, write_output
from finetune.errors import UserError, printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The format of a file name without an extension.
FORMAT = "png"
DPI = 150

# Okabe and Ito (2008): people with any colour vision can tell these apart. Their yellow is left out, which
# is too pale for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Beside the colour, so that lines can be told apart in grey as well.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# For what is neither data nor text: lines between phases, limits.
GREY = "#666666"

_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 13,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "svg.hashsalt": "finetune",
}
# What keeps dates and versions out of a file, by format.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "svgz": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# Longer labels lose their middle.
LABEL_LENGTH = 60


@contextlib.contextmanager
def style() -> Iterator[None]:
    """While active, what is added to a figure gets the style of all figures."""
    from cycler import cycler
    from matplotlib import rc_context

    changes: Any = _STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}
    with rc_context(changes):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure of the given size in inches. It needs no display.

    Add what it shows within :func:`style`; :func:`new_panels` and :func:`new_chart` do so.
    """
    from matplotlib.figure import Figure

    with style():
        return Figure(figsize=(width, height), layout="constrained")


def new_panels(width: float, height: float, titles: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """Make a figure with pairs of axes in a row, one per title. An empty title takes no room."""
    figure = new_figure(width, height)
    with style():
        row = figure.subplots(1, len(titles), squeeze=False)[0]
        for axes, title in zip(row, titles, strict=True):
            if title:
                axes.set_title(printable(title), parse_math=False)
    return figure, list(row)


def new_chart(width: float, height: float, title: str) -> "tuple[Figure, Axes]":
    """Make a figure with one pair of axes. Dollar signs in ``title`` do not start a formula."""
    figure, [axes] = new_panels(width, height, [title])
    return figure, axes


def label(text: str, longest: int = LABEL_LENGTH) -> str:
    """Make a name fit for a label: printable, no formula, and of at most ``longest`` characters."""
    shown = printable(text)
    if len(shown) > longest:
        half = longest // 2
        shown = f"{shown[: half - 1]}…{shown[-half:]}"
    # matplotlib reads text between dollar signs as a formula, and hides labels that begin with "_".
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def legend_below(figure: "Figure", handles: "Sequence[Artist] | None" = None) -> None:
    """Explain the figure below its axes, where no curve is.

    Args:
        handles: what to explain; None: everything with a label, each label once.
    """
    if handles is None:
        found: dict[str, Artist] = {}
        for axes in figure.axes:
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
                found.setdefault(name, handle)
        handles = list(found.values())
    if not handles:
        return
    lengths = [len(str(handle.get_label())) for handle in handles]
    with style():
        figure.legend(
            handles=handles, loc="outside lower center", ncols=_columns(lengths, figure.get_figwidth())
        )


def _columns(lengths: Sequence[int], width: float) -> int:
    """Return how many columns of labels of these lengths fit in ``width`` inches, at least one."""
    count = len(lengths)
    for rows in range(1, count):
        columns = -(-count // rows)
        # matplotlib makes the first columns longer if they cannot all be equal.
        ends = [(count * place + columns - 1) // columns for place in range(columns + 1)]
        widest = [max(lengths[start:stop]) for start, stop in pairwise(ends)]
        # A character is about 0.07 inch wide; the sample of a line takes the room of eight.
        if 0.07 * sum(each + 8 for each in widest) <= width:
            return columns
    return 1


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
    write_output(path, figure_bytes(figure, _format(path)))


def figure_bytes(figure: "Figure", file_format: str = FORMAT) -> bytes:
    """Return the content of a file that shows ``figure``."""
    content = io.BytesIO()
    with style(), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(content, format=file_format, dpi=DPI, metadata=_METADATA.get(file_format))
    return content.getvalue()


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".") or FORMAT
