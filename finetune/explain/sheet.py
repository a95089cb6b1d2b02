"""A sheet of equal tiles with text, as a matplotlib figure.

Tiles are drawn pixel by pixel, so all have the same size and distance. Text is drawn by matplotlib, so it
stays text in SVG and PDF.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from finetune.disk.figure import DPI, new_figure, style
from finetune.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAME, INK = "#9a9a9a", "#1a1a1a"
# Letters are fitted to pixels, which makes small text a little wider than its outlines.
WIDENED = 1.04


class Sheet:
    """A white sheet of ``width`` x ``height`` pixels. All positions and sizes are in pixels of a PNG."""

    def __init__(self, width: int, height: int) -> None:
        self.canvas = Image.new("RGB", (width, height), "white")
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def tile(self, image: Image.Image, left: int, top: int) -> None:
        """Draw an image with a grey frame inside its edge."""
        self.canvas.paste(image, (left, top))
        right, bottom = left + image.width - 1, top + image.height - 1
        ImageDraw.Draw(self.canvas).rectangle((left, top, right, bottom), outline=FRAME)

    def bar(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """Fill a rectangle; right and bottom are inside."""
        ImageDraw.Draw(self.canvas).rectangle((left, top, right, bottom), fill=colour)

    def text(self, x: float, y: float, text: str, size: float, **look: object) -> None:
        """Write ``text`` with its top left corner at (x, y). ``look``: properties of matplotlib's text."""
        usual = {"fontsize": size * 72 / DPI, "color": INK, "va": "top", "ha": "left"}
        self._texts.append((x, y, text, usual | look))

    def figure(self) -> "Figure":
        """Return the sheet as a figure that has its size in pixels when it is written."""
        width, height = self.canvas.size
        figure = new_figure(width / DPI, height / DPI)
        figure.set_layout_engine("none")
        with style():
            axes = figure.add_axes((0, 0, 1, 1))
            axes.imshow(
                np.asarray(self.canvas), extent=(0, width, height, 0), interpolation="none", aspect="auto"
            )
            axes.axis("off")
            for x, y, text, look in self._texts:
                axes.text(x, y, text, parse_math=False, **look)
        return figure


def fit(text: str, size: float, width: float, weight: str = "normal") -> str:
    """A name on one line of ``width`` pixels. A longer one loses its middle."""
    return _longest(printable(text), lambda cut: _width(cut, size, weight) <= width)


def fill(text: str, size: float, width: float, lines: int) -> str:
    """A name on at most ``lines`` lines of ``width`` pixels. A longer one loses its middle."""
    cut = _longest(printable(text), lambda cut: len(_lines(cut, size, width)) <= lines)
    return "\n".join(_lines(cut, size, width))


def _longest(text: str, fits: Callable[[str], bool]) -> str:
    """``text``, or as much of its ends as fits."""
    if fits(text):
        return text
    fitting, too_long = 0, len(text)
    while too_long - fitting > 1:
        kept = (fitting + too_long) // 2
        fitting, too_long = (kept, too_long) if fits(_without_middle(text, kept)) else (fitting, kept)
    return _without_middle(text, fitting)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


def _lines(text: str, size: float, width: float) -> list[str]:
    found = [""]
    for word in text.split(" "):
        longer = f"{found[-1]} {word}".strip()
        if _width(longer, size) <= width:
            found[-1] = longer
            continue
        found.append("")
        for letter in word:
            if _width(found[-1] + letter, size) > width:
                found.append("")
            found[-1] += letter
    return [line for line in found if line]


@functools.lru_cache(maxsize=4096)
def _width(text: str, size: float, weight: str = "normal") -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size * 72 / DPI, weight=weight)
    points: float = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
    return WIDENED * points * DPI / 72
