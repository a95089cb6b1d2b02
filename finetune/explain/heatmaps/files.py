"""Draw heat-maps over their image, and write them to files whose names no other image takes."""

import hashlib
import io
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from PIL.PngImagePlugin import PngInfo

from finetune.decision.probabilities import in_digits
from finetune.deploy.class_folders import folder_names
from finetune.disk.figure import new_figure
from finetune.disk.outputs import write_output
from finetune.errors import printable
from finetune.explain.heatmaps.explanations import Explained, Explanation

# Perceptually uniform from dark to light, also in grey and for the colour-blind.
COLOURS = "inferno"
# How far the heat covers the image: where it is 0, and where it is 1.
LEAST_COVER, MOST_COVER = 0.35, 0.75
# A figure's panels, its name and a line of its titles, in inches; and the letters that fit above a panel.
PANEL, NAME, LINE, LETTERS = 2.9, 0.45, 0.19, 30
MOST_LINES = 2
# Longer names of images are cut, so that a class name fits behind them.
LONGEST = 60
# Files of the same folder that other modes of the command write.
OTHERS = ("layers", "nearest", "map")
# Where a file keeps which image it shows.
SOURCE_KEY = "finetune-source"


class HeatMapWriter:
    """Writes the heat-maps of images into a folder.

    An image gets a figure, with its heat-maps beside it, and for each class the heat-map alone: grey, one
    pixel per pixel that the network sees. The files of an image are named after it. If other images of that
    name came before, in this call or in earlier ones, a number is added. The same image again replaces its
    own files.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._class_names = _short_names(classes)
        self._taken: dict[str, str] = {}

    def write(self, explained: Explained) -> list[dict[str, Any]]:
        """Write the heat-maps of one image, and describe them: one JSON-ready entry per class.

        An entry has ``path``, ``class``, ``probability``, ``predicted`` and ``files``, or ``path`` and
        ``error``.

        Raises:
            UserError: the folder cannot be written.
            SaveError: the disk is full or failing.
        """
        if explained.error is not None:
            return [{"path": explained.name, "error": explained.error}]
        source = _digest(explained.name)
        stem = self._free_stem(explained.name, source)
        figure = self._folder / f"{stem}.png"
        entries = []
        for each in explained.explanations:
            alone = self._folder / f"{stem}.{self._class_names[each.label]}.map.png"
            grey = Image.fromarray(np.rint(255 * each.values).astype(np.uint8))
            write_output(alone, _png(grey, source))
            about = {"path": each.name, "class": each.label, "predicted": each.predicted}
            about |= {"probability": float(in_digits(each.probability))}
            entries.append(about | {"files": {"figure": str(figure), "map": str(alone)}})
        write_output(figure, _png(draw(explained.explanations), source))
        return entries

    def _free_stem(self, name: str, source: str) -> str:
        bare = _short_names([Path(name).stem], OTHERS)[Path(name).stem]
        number = 1
        while True:
            stem = bare if number == 1 else f"{bare}-{number}"
            owner = self._taken.get(stem.casefold()) or _source_of(self._folder / f"{stem}.png")
            if owner in (None, source):
                self._taken[stem.casefold()] = source
                return stem
            number += 1


def in_words(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries of one image on one line."""
    first = entries[0]
    if "error" in first:
        return f"{printable(first['path'])}  error: {printable(first['error'])}"
    classes = ", ".join(f"{printable(each['class'])} {100 * each['probability']:.1f} %" for each in entries)
    return f"{printable(first['path'])}  {classes}  {printable(first['files']['figure'])}"


def overlay(image: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A heat-map (S, S), 0 to 1, over its image, uint8 (S, S, 3).

    The image is grey where the heat is low, so that its colours are not taken for heat.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None] / 255
    heat = colormaps[COLOURS](values)[..., :3]
    cover = LEAST_COVER + (MOST_COVER - LEAST_COVER) * values[..., None]
    mixed = (1 - cover) * grey + cover * heat
    return np.asarray(np.rint(255 * mixed.clip(0, 1)), dtype=np.uint8)


def draw(explanations: Sequence[Explanation]) -> Image.Image:
    """Draw an image beside its heat-maps, each under its class and probability."""
    from matplotlib.cm import ScalarMappable

    panels = [("what the network sees", explanations[0].image)]
    for each in explanations:
        note = "predicted" if each.predicted else "asked for"
        title = f"{_wrapped(each.label)}\n{100 * each.probability:.1f} %, {note}"
        panels.append((title, overlay(each.image, each.values)))
    lines = max(title.count("\n") + 1 for title, _ in panels)
    figure = new_figure(PANEL * len(panels) + 0.6, PANEL + NAME + LINE * lines)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, pixels) in zip(axes, panels, strict=True):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set_axis_off()
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=list(axes), shrink=0.8, pad=0.02, aspect=25)
    bar.set_ticks([0, 1], labels=["not", "most"])
    bar.set_label("speaks for the class", labelpad=-8)
    name = printable(Path(explanations[0].name).name)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"
    figure.suptitle(name, fontsize=9, color="0.4", parse_math=False)
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(content, format="png", dpi=150, bbox_inches="tight", pad_inches=0.1)
    return Image.open(content)


def _wrapped(name: str) -> str:
    lines = textwrap.wrap(printable(name), LETTERS) or [""]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1][: LETTERS - 1]}…"]
    return "\n".join(lines)


def _png(image: Image.Image, source: str) -> bytes:
    about = PngInfo()
    about.add_text(SOURCE_KEY, source)
    content = io.BytesIO()
    image.save(content, format="png", pnginfo=about)
    return content.getvalue()


def _digest(name: str) -> str:
    """Names an image by its path, without telling it."""
    return hashlib.sha256(os.fsencode(Path(name).absolute())).hexdigest()[:16]


def _source_of(path: Path) -> str | None:
    """The image that an existing file shows; "" if it is no file of ours, None if there is no file."""
    if not os.path.lexists(path):
        return None
    try:
        with Image.open(path) as image:
            text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
            return str(text.get(SOURCE_KEY, ""))
    except (OSError, ValueError, SyntaxError):
        return ""


def _short_names(names: Sequence[str], reserved: Sequence[str] = ()) -> dict[str, str]:
    """A valid file name for each name; no two are equal, and none is ``reserved``."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for number, (name, valid) in enumerate(folder_names(names, reserved).items(), start=1):
        short = valid[:LONGEST].rstrip(" .") or "_"
        found[name] = f"{short}-{number}" if short.casefold() in taken else short
        taken.add(found[name].casefold())
    return found
