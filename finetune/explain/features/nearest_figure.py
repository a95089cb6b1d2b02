"""Draws images beside the training images that are most like them."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from finetune.data.dataset import Split
from finetune.disk.figure import COLOURS
from finetune.errors import BadImageError
from finetune.explain.features.nearest_images import NearestImages
from finetune.explain.sheet import Sheet, fill, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In pixels of the PNG.
TILE, GAP, WIDE_GAP, MARGIN = 300, 24, 72, 60
TITLE, CAPTION, FOOTER = 170, 104, 110
# Rows of the figure, at most. The table has all images.
MOST_ROWS = 12
EDGE = 9
PAPER, QUIET, WRONG = "#f0f0f0", "#5c5c5c", COLOURS[1]


def draw_nearest(found: NearestImages) -> "Figure":
    """Draw the first images, one in a row, each with its nearest training images on the right.

    A training image of another class than the predicted one has a thick frame and a cross in its caption.
    """
    rows = found.rows()
    shown = rows[:MOST_ROWS]
    columns = found.places.shape[1]
    width = 2 * MARGIN + TILE + WIDE_GAP + columns * (TILE + GAP) - GAP
    sheet = Sheet(width, TITLE + len(shown) * (TILE + CAPTION) + FOOTER)
    inner = width - 2 * MARGIN
    sheet.text(
        MARGIN, 34, fit("The training images most like each image", 48, inner, "bold"), 48, weight="bold"
    )
    sheet.text(MARGIN, 116, "image, and its prediction", 26, color=QUIET)
    left = MARGIN + TILE + WIDE_GAP
    sheet.text(left, 116, "nearest training images, their labels, and how similar they are", 26, color=QUIET)
    for place, row in enumerate(shown):
        top = TITLE + place * (TILE + CAPTION)
        sheet.tile(_tile(found.queries.images, int(found.queries.indices[place]), found.bands), MARGIN, top)
        sheet.text(MARGIN, top + TILE + 14, fit(row["class"], 26, TILE, "bold"), 26, weight="bold")
        sheet.text(MARGIN, top + TILE + 50, f"predicted, {100 * row['probability']:.1f} %", 22, color=QUIET)
        for column, near in enumerate(row["nearest"]):
            x = left + column * (TILE + GAP)
            index = int(found.pool.indices[found.places[place, column]])
            is_wrong = near["class"] != row["class"]
            if is_wrong:
                sheet.bar(x - EDGE, top - EDGE, x + TILE + EDGE - 1, top + TILE + EDGE - 1, WRONG)
            sheet.tile(_tile(found.pool.images, index, found.bands), x, top)
            look = {"color": WRONG, "weight": "bold"} if is_wrong else {}
            text = f"✗ {near['class']}" if is_wrong else near["class"]
            sheet.text(x, top + TILE + 14, fit(text, 26, TILE, "bold" if is_wrong else "normal"), 26, **look)
            sheet.text(x, top + TILE + 50, f"{near['similarity']:.3f}", 22, color=QUIET)
    sheet.text(
        MARGIN, sheet.canvas.height - FOOTER + 20, fill(explained(found), 22, inner, 3), 22, color=QUIET
    )
    return sheet.figure()


def explained(found: NearestImages) -> str:
    """How the images were found, in words."""
    pool, more = len(found.pool), len(found.queries) - MOST_ROWS
    searched = f"all {pool:,}" if pool == found.train else f"a sample of {pool:,} of {found.train:,}"
    return (
        f"Nearest by the cosine similarity of the features before the last layer, among {searched} training "
        "images. ✗: another class than the predicted one."
        + (f" {more:,} more images are in the table." if more > 0 else "")
    )


def _tile(images: Split, index: int, bands: int | None) -> Image.Image:
    """The whole image on a square; of more than three bands, the first three."""
    try:
        image = images.image(index, bands, TILE)
    except BadImageError:  # gone since it was read
        return Image.new("RGB", (TILE, TILE), PAPER)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(image[:, :, :3]))
    return ImageOps.pad(image, (TILE, TILE), Image.Resampling.LANCZOS, color=PAPER)
