"""The centre of an image that grows very long when resized, computed without computing the rest.

An image of 1 x 10,000 pixels becomes one of 256 x 2,560,000 before 224 x 224 of it are kept. Here only
those are computed, in the arithmetic of Pillow's own resampling (fixed-point weights, across first, bytes in
between), so that the pixels are the same bits. Enlarging only: in that direction the order of Pillow's two
passes is the same in all versions, and there is nothing to gain in the other.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

# Pillow's weights are whole numbers with so many binary places.
PRECISION_BITS = 22
SUPPORT = {Image.Resampling.BILINEAR: 1, Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}


def resized_window(
    image: Image.Image, size: tuple[int, int], columns: range, rows: range, method: Image.Resampling
) -> Image.Image:
    """``image.resize(size, method)``, of which only ``columns`` and ``rows`` are computed.

    ``size`` is (width, height) and must not be smaller than the RGB image on either side.
    """
    pixels = np.asarray(image, dtype=np.uint8)
    if method == Image.Resampling.NEAREST:
        across = _nearest(image.width, size[0], columns)
        down = _nearest(image.height, size[1], rows)
        return Image.fromarray(np.ascontiguousarray(pixels[down][:, across]))
    first_row, row_weights = _weights(image.height, size[1], rows, method)
    first_column, column_weights = _weights(image.width, size[0], columns, method)
    # Pillow leaves out the pass of a side that keeps its size; its weights would be 1 and change nothing.
    needed = slice(int(first_row.min()), int(first_row.max()) + row_weights.shape[1])
    wide = _pass(pixels[needed].transpose(1, 0, 2), first_column, column_weights)
    tall = _pass(wide.transpose(1, 0, 2), first_row - needed.start, row_weights)
    return Image.fromarray(np.ascontiguousarray(tall))


def _weights(
    size: int, resized: int, wanted: range, method: Image.Resampling
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each wanted output pixel: its first input pixel, and the fixed-point weights from there on."""
    support = SUPPORT[method]
    centre = (np.arange(wanted.start, wanted.stop) + 0.5) * (size / resized)
    first = np.maximum(np.trunc(centre - support + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(centre + support + 0.5), size).astype(np.int64)
    taps = 2 * support + 1
    weights = np.zeros((len(centre), taps))
    total = np.zeros(len(centre))
    for tap in range(taps):
        weight = np.where(first + tap < end, _filter((tap + first) - centre + 0.5, support), 0.0)
        weights[:, tap] = weight
        total += weight
    weights /= total[:, None]
    # Rounded half away from zero, as C does it: add a half and cut off.
    scaled = weights * (1 << PRECISION_BITS)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)


def _filter(x: npt.NDArray[np.float64], support: int) -> npt.NDArray[np.float64]:
    if support == 3:
        return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)
    x = np.abs(x)
    if support == 1:
        return np.where(x < 1.0, 1.0 - x, 0.0)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _sinc(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = x * np.pi
    return np.where(x == 0.0, 1.0, np.sin(x) / np.where(x == 0.0, 1.0, x))


def _pass(
    pixels: npt.NDArray[np.uint8], first: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Resample along the first axis."""
    total = np.full((len(first), *pixels.shape[1:]), 1 << (PRECISION_BITS - 1), dtype=np.int64)
    for tap in range(weights.shape[1]):
        # A tap beyond the border has weight 0.
        total += pixels[np.minimum(first + tap, len(pixels) - 1)] * weights[:, tap, None, None]
    resampled: npt.NDArray[np.uint8] = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return resampled


def _nearest(size: int, resized: int, wanted: range) -> npt.NDArray[np.int64]:
    """The input pixel that Pillow takes for each wanted output pixel, by resizing a ruler."""
    ruler = Image.fromarray(np.arange(size, dtype=np.int32)[None, :])
    marks = np.asarray(ruler.resize((resized, 1), Image.Resampling.NEAREST))
    return marks[0, wanted.start : wanted.stop].astype(np.int64)
