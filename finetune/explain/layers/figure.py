"""Draws what the layers of a network have learned, as one figure for a slide.

The layers go from left to right, as in the network; before fine-tuning is above, after is below. Tiles are
drawn pixel by pixel, so all have the same size and distance; text is drawn by matplotlib, so it stays text in
SVG and PDF.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from finetune.disk.figure import COLOURS
from finetune.explain.layers.views import CHANNELS, Crop, Depth, LayerViews
from finetune.explain.sheet import Sheet, fill, fit
from finetune.image.pixels import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# All in pixels of the PNG.
WIDTH, MARGIN, COLUMN_GAP = 2880, 60, 56
NARROWEST = 1920
# Of a column, so that the rows fit on a slide when there are few columns.
WIDEST = 560
TILE_GAP, UNIT_GAP = 6, 22
TITLE, HEADER, BAND, FOOTER = 150, 176, 84, 118
PAPER, QUIET = "#f0f0f0", "#5c5c5c"
# More classes cannot be told apart by colour.
MOST_COLOURS = len(COLOURS)
STRIP = 7
# A crop of at least this share of the image shows where the unit is.
LOST = 0.5


def draw_layers(views: LayerViews) -> "Figure":
    """Draw the figure: 2880 pixels wide as PNG, or less with few depths."""
    columns = 1 + len(views.depths)
    width = min((WIDTH - 2 * MARGIN - COLUMN_GAP * (columns - 1)) // columns, WIDEST)
    states = len(views.subject.states)
    unit = (width - TILE_GAP * 2) // 2
    rows = CHANNELS[states]
    block = rows * unit + (rows - 1) * UNIT_GAP
    taken = 2 * MARGIN + columns * (width + COLUMN_GAP) - COLUMN_GAP
    across = WIDTH if width < WIDEST else max(taken, NARROWEST)
    footer = fill(_explained(views), 22, across - 2 * MARGIN, 3)
    bottom = TITLE + HEADER + states * block + (states - 1) * BAND
    sheet = Sheet(across, bottom + FOOTER + 28 * footer.count("\n"))
    left = [MARGIN + index * (width + COLUMN_GAP) for index in range(columns)]
    tops = [TITLE + HEADER + index * (block + BAND) for index in range(states)]
    title, room = f"What the layers of {views.subject.name} have learned", across - 2 * MARGIN
    sheet.text(MARGIN, 34, fit(title, 52, room, "bold"), 52, weight="bold")
    sheet.text(MARGIN, 100, fit(views.subject.about, 30, room), 30, color=QUIET)
    for state, top in enumerate(tops):
        _first_column(sheet, views, state, (left[0], top, width, block))
    for x, depth in zip(left[1:], views.depths, strict=True):
        _header(sheet, depth, x, width)
        if states == 2:
            _between(sheet, depth, x + width / 2, tops[1] - BAND / 2)
        for state, top in enumerate(tops):
            for row, each in enumerate(depth.units):
                y = top + row * (unit + UNIT_GAP)
                _unit(sheet, views, each.crops[state], (x, y, unit))
                _map(sheet, each.maps, state, (x + unit + 2 * TILE_GAP, y, unit))
                turned = {"rotation": 90, "ha": "right", "va": "center"}
                sheet.text(x - 10, y + unit / 2, f"channel {each.channel}", 20, color=QUIET, **turned)
    sheet.text(MARGIN, bottom + 34, footer, 22, color=QUIET, linespacing=1.2)
    _legend(sheet, views, sheet.canvas.height - 34)
    return sheet.figure()


def _first_column(sheet: Sheet, views: LayerViews, state: int, box: tuple[int, int, int, int]) -> None:
    """The example image, and the filters of the first layer below it."""
    left, top, width, height = box
    side = (width - TILE_GAP * 2) // 2
    name, example = views.example
    sheet.tile(_fitted(example, side), left, top)
    state_of = views.subject.states[state]
    sheet.text(left + side + 16, top - 8, state_of.title, 36, weight="bold")
    room = width - side - 16
    lines = 3 if side >= 200 else 2
    details = (fill(each, 20, room, lines) for each in (state_of.weights, f"image: {name}"))
    sheet.text(left + side + 16, top + 44, "\n\n".join(details), 20, color=QUIET, linespacing=1.1)
    if views.filters is None:
        return
    filters = views.filters[state]
    count = len(filters)
    shown = f"{count} of {views.all_filters}" if count < views.all_filters else f"all {count}"
    kind = " (bands 1 to 3)" if views.bands > 3 else ""
    caption = fill(f"first filters{kind}: {shown}", 22, width, 2)
    sheet.text(left, top + side + 30, caption, 22, color=QUIET, linespacing=1.1)
    y = top + side + 68 + 27 * caption.count("\n")
    room, gap = top + height - y, 5
    across, cell = _grid(count, width + gap, room + gap)
    for index, each in enumerate(filters):
        row, column = divmod(index, across)
        pixels = Image.fromarray((255 * each).round().astype(np.uint8))
        tile = pixels.resize((cell - gap, cell - gap), Image.Resampling.NEAREST)
        sheet.tile(tile, left + column * cell, y + row * cell)


def _grid(count: int, width: int, height: int) -> tuple[int, int]:
    """The number of columns in which ``count`` square cells are largest, and the side of a cell."""
    sides = {across: min(width // across, height // -(-count // across)) for across in range(1, count + 1)}
    across = max(sides, key=lambda each: sides[each])
    return across, sides[across]


def _header(sheet: Sheet, depth: Depth, left: int, width: int) -> None:
    layer, layout = depth.layer, depth.layout
    sheet.text(left, TITLE + 10, f"layer {layer.number}", 36, weight="bold")
    sheet.text(left, TITLE + 62, fit(layer.name, 24, width), 24)
    shape = f"{layout.channels} × {layout.height} × {layout.width}"
    sheet.text(left, TITLE + 98, f"{shape}\nsees {_reach(depth)}", 22, color=QUIET, linespacing=1.25)


def _reach(depth: Depth) -> str:
    field = depth.field
    if field.size >= field.image_size:
        return "the whole image"
    return f"{field.size} × {field.size} pixels" + (" (gates: all)" if field.gated else "")


def _between(sheet: Sheet, depth: Depth, x: float, y: float) -> None:
    if depth.moved is None:
        return
    text = "frozen: the same" if depth.moved == 0 else f"moved by {100 * depth.moved:.2g} %"
    sheet.text(x, y, text, 27, weight="bold", ha="center", va="center")


def _unit(sheet: Sheet, views: LayerViews, crops: Sequence[Crop], box: tuple[int, int, int]) -> None:
    left, top, side = box
    tile = (side - TILE_GAP) // 2
    coloured = len(views.subject.source.classes) <= MOST_COLOURS
    for index, crop in enumerate(crops):
        row, column = divmod(index, 2)
        x, y = left + column * (side - tile), top + row * (side - tile)
        sheet.tile(_cropped(crop, tile, views.example[1].shape[0]), x, y)
        if coloured:
            sheet.bar(x, y + tile - STRIP, x + tile - 1, y + tile - 1, COLOURS[crop.target])


def _cropped(crop: Crop, side: int, image_size: int) -> Image.Image:
    """A crop in the middle of a square tile, with the unit's own place if the crop does not show it."""
    height, width = crop.pixels.shape[:2]
    tile = _fitted(crop.pixels, side)
    scale = side / max(height, width)
    if max(height, width) < LOST * image_size:
        return tile
    top, bottom, left, right = (round(each * scale) for each in crop.cell)
    x, y = (side - round(width * scale)) // 2, (side - round(height * scale)) // 2
    draw = ImageDraw.Draw(tile)
    inner = (x + left, y + top, x + right - 1, y + bottom - 1)
    draw.rectangle((inner[0] - 1, inner[1] - 1, inner[2] + 1, inner[3] + 1), outline="black")
    draw.rectangle(inner, outline="white", width=2)
    return tile


def _fitted(pixels: Pixels, side: int) -> Image.Image:
    """Pixels as large as fit in a square tile, on paper. Enlarged pixels stay visible."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.LANCZOS
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, method)
    tile = Image.new("RGB", (side, side), PAPER)
    tile.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return tile


def _map(sheet: Sheet, maps: Sequence[NDArray[np.float32]], state: int, box: tuple[int, int, int]) -> None:
    """The values of a channel on the example; both states have one scale."""
    from matplotlib import colormaps

    left, top, side = box
    low, high = min(float(each.min()) for each in maps), max(float(each.max()) for each in maps)
    values = (maps[state] - low) / (high - low) if high > low else np.zeros_like(maps[state])
    pixels = (255 * colormaps["magma"](values)[:, :, :3]).round().astype(np.uint8)
    tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
    sheet.tile(tile, left, top)


def _explained(views: LayerViews) -> str:
    count = len(views.depths[0].units[0].crops[0])
    return (
        f"Each channel: the {count} of {views.searched} training images with its highest values, cropped to "
        "what the unit sees at the place of the highest (square: this place), and its values on the image at "
        "the left (dark: low, light: high)."
    )


def _legend(sheet: Sheet, views: LayerViews, y: int) -> None:
    classes = views.subject.source.classes
    if len(classes) > MOST_COLOURS:
        return
    step = min(420, (sheet.canvas.width - 2 * MARGIN) // len(classes))
    for index, (name, colour) in enumerate(zip(classes, COLOURS, strict=False)):
        x = MARGIN + index * step
        sheet.bar(x, y - 7, x + 24, y + 7, colour)
        sheet.text(x + 34, y, fit(name, 22, step - 60), 22, color=QUIET, va="center")
