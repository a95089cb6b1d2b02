"""The preprocessing that evaluation, prediction and export share: from an image to the input of the network.

Uses Pillow and NumPy only, so the result is bit-identical without torch. The pixels equal those of
torchvision's ``v2.Resize(antialias=True)`` and ``v2.CenterCrop`` on a PIL image; in very elongated images,
they may differ by one level.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.image.pixels import ImageOrBands, map_triples, triples

ResizeMode = Literal["shorter", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Reads = Literal["colours", "bands"]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A very elongated image may have billions of pixels between resize and crop. Above this number, only the part
# that the crop shows is computed, which takes bounded time and memory.
MAX_RESIZED_PIXELS = 1 << 24
# The widest filter, Lanczos, reads 3 pixels on either side of a position when it enlarges.
MARGIN = 4
# Limits of the absolute mean and of the std, which are of values in 0..1.
LARGEST, LEAST_STD = 1e6, 1e-12


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop or pad, and normalise.

    Attributes:
        image_size: side of the square result, in pixels.
        resize: size before the crop, in pixels.
        resize_mode: the side that ``resize`` sets. ``shorter``: the shorter side. ``squash``: both sides.
            ``pad``: the longer side; the whole image lies in the middle of the square, and
            :attr:`mean_colour` fills the rest. In the other modes, an image smaller than the crop gets a
            black border, as in torchvision.
        interpolation: the filter of the resize.
        mean, std: per channel, of values in 0..1. Their length is the number of channels. Three channels are
            R, G, B. One channel is grey (ITU-R 601 luma, as in Pillow). More than three repeat the colours:
            R, G, B, R, ...
        reads: ``colours``, or ``bands`` for images with as many bands as channels: uint8 (height, width,
            channels). Each band is processed alone.

    Raises:
        ValueError: a size is below 1, a name is unknown, a mean is not finite, a std is not positive, there
            are two channels, or ``mean`` and ``std`` differ in length; ``bands`` with three channels or
            fewer; ``pad`` with ``resize`` above ``image_size``.
    """

    image_size: int
    resize: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reads: Reads = "colours"

    @property
    def channels(self) -> int:
        """The number of channels of the result."""
        return len(self.mean)

    @property
    def bands(self) -> int | None:
        """The argument ``bands`` of :func:`~finetune.image.bands.open_image`."""
        if self.channels <= 3:
            return None
        return self.channels if self.reads == "bands" else 3

    @property
    def depth(self) -> int:
        """The number of 8-bit values per pixel before :meth:`normalize`."""
        return self.channels if self.reads == "bands" else min(self.channels, 3)

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """The 8-bit colour that normalisation maps to 0 (nearly); for bands, one value per band."""
        if self.reads == "bands":
            return tuple(_byte(value) for value in self.mean)
        red, green, blue = (self.mean * 3)[:3] if self.channels == 1 else self.mean[:3]
        return _byte(red), _byte(green), _byte(blue)

    def __post_init__(self) -> None:
        for name in ("image_size", "resize"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of pixels, not {value!r}")
        for name, known in (
            ("resize_mode", get_args(ResizeMode)),
            ("interpolation", get_args(Interpolation)),
            ("reads", get_args(Reads)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if (
                not isinstance(values, tuple)
                or len(values) in (0, 2)
                or len(values) != len(self.mean)
                or not all(_finite(value) for value in values)
            ):
                raise ValueError(f"{name} must be one or three finite numbers or more, not {values!r}")
        if min(self.std) < LEAST_STD:
            raise ValueError(f"std must be positive, not {self.std!r}")
        if self.reads == "bands" and self.channels <= 3:
            raise ValueError(f"reads is bands with {self.channels} channels; there must be 4 or more")
        if self.resize_mode == "pad" and self.resize > self.image_size:
            raise ValueError(
                f"resize must be at most image_size ({self.image_size}) under pad, not {self.resize}"
            )

    def geometry(self, image: ImageOrBands) -> ImageOrBands:
        """Resize an image, and centre crop or pad it, to ``image_size`` x ``image_size``.

        An RGB image gives an RGB image; bands give bands: uint8 (height, width, channels).
        """
        fills = triples(self.mean_colour)
        if self.reads == "bands":
            return map_triples(self._pixels(image), lambda triple, n: self._fitted(triple, fills[n]))
        if not isinstance(image, Image.Image):
            raise ValueError("an RGB image is needed, not an array")
        return self._fitted(image, fills[0])

    def _fitted(self, image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
        if image.mode != "RGB":
            raise ValueError(f"an RGB image is needed, not {image.mode}")
        width, height = self.resized(*image.size)
        method = RESAMPLING[self.interpolation]
        if width * height > MAX_RESIZED_PIXELS and width >= image.width and height >= image.height:
            image = _resized_centre(image, (width, height), self.image_size, method)
        elif (width, height) != image.size:
            image = image.resize((width, height), method)
        if self.resize_mode == "pad":
            return _in_the_middle(image, self.image_size, fill)
        return _centre_crop(image, self.image_size)

    def colours(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """RGB pixels, or their luma (height, width, 1) if there is one channel."""
        if self.channels > 1:
            return rgb
        return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.uint8)[:, :, None]

    def normalize(self, image: ImageOrBands) -> npt.NDArray[np.float32]:
        """Compute ``(x / 255 - mean) / std``: float32 (channels, height, width), C-contiguous."""
        pixels = self.colours(self._pixels(image))
        if self.channels > self.depth:
            pixels = pixels[:, :, np.arange(self.channels) % 3]
        scaled = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
        scaled /= np.float32(255)
        scaled -= np.asarray(self.mean, dtype=np.float32).reshape(-1, 1, 1)
        scaled /= np.asarray(self.std, dtype=np.float32).reshape(-1, 1, 1)
        return scaled

    def _pixels(self, image: ImageOrBands) -> npt.NDArray[np.uint8]:
        pixels = np.asarray(image, dtype=np.uint8)
        needed = self.channels if self.reads == "bands" else 3
        if pixels.ndim != 3 or pixels.shape[2] != needed:
            kind = f"an image of {needed} bands" if self.reads == "bands" else "an RGB image"
            raise ValueError(f"{kind} is needed, not one of shape {pixels.shape}")
        return pixels

    def __call__(self, image: ImageOrBands) -> npt.NDArray[np.float32]:
        """The input of the network: float32 (channels, image_size, image_size), C-contiguous."""
        return self.normalize(self.geometry(image))

    @property
    def in_words(self) -> str:
        """How images are resized, for the screen."""
        how = {
            "shorter": f"shorter side to {self.resize}",
            "squash": f"squashed to {self.resize} x {self.resize}",
            "pad": f"whole, longer side to {self.resize}, the rest filled",
        }[self.resize_mode]
        return f"{self.image_size} px ({how}, {self.interpolation})"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; :meth:`from_dict` reads it."""
        facts = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        if self.reads == "colours":
            # Earlier versions read colours only and did not write the key. Their descriptions stay the same.
            del facts["reads"]
        return facts

    @classmethod
    def from_dict(cls, value: Any) -> "Preprocessing":
        """Read the description that :meth:`to_dict` wrote.

        Raises:
            ValueError: it is not a mapping, or an entry is missing, unknown or of the wrong kind.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, dict):
            raise ValueError(f"must be a mapping with {', '.join(names)}")
        if missing := [name for name in names if name not in value and name != "reads"]:
            raise ValueError(f"lacks {', '.join(missing)}")
        if unknown := [str(name) for name in value if name not in names]:
            raise ValueError(f"has unknown entries: {', '.join(unknown)}")
        given = dict(value)
        for name in ("mean", "std"):
            if isinstance(given[name], list | tuple) and all(_finite(number) for number in given[name]):
                given[name] = tuple(float(number) for number in given[name])
        return cls(**given)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) before the crop. As in torchvision, the longer side is rounded down.

        Under ``pad``, the shorter side is rounded to the nearest pixel, and is at least 1.
        """
        if self.resize_mode == "squash":
            return self.resize, self.resize
        if self.resize_mode == "pad":
            shorter = max(1, round(self.resize * min(width, height) / max(width, height)))
            return (shorter, self.resize) if width <= height else (self.resize, shorter)
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)


def _resized_centre(
    image: Image.Image, size: tuple[int, int], side: int, method: Image.Resampling
) -> Image.Image:
    """Compute the part of ``image.resize(size, method)`` that a centre crop to ``side`` shows.

    ``size`` must enlarge the image: a filter that reduces it reads more than ``MARGIN`` pixels.
    """
    spans = []
    for length, resized in zip(image.size, size, strict=True):
        shown, scale = _centred(resized, side), length / resized
        first, end = shown.start * scale, min(shown.stop * scale, length)
        start, stop = max(0, math.floor(first) - MARGIN), min(length, math.ceil(end) + MARGIN)
        spans.append((start, stop, first - start, end - start, len(shown)))
    (left, right, x0, x1, width), (top, bottom, y0, y1, height) = spans
    # Cropped first, since Pillow computes the box in float32, which is inexact far from 0.
    nearby = image.crop((left, top, right, bottom))
    return nearby.resize((width, height), method, box=(x0, y0, x1, y1))


def _centred(size: int, wanted: int) -> range:
    """The pixels of one side that a centre crop shows, rounded as in torchvision (halves to even)."""
    start = round((size - wanted) / 2.0) if size > wanted else 0
    return range(start, min(start + wanted, size))


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Crop the centre. A smaller image gets a black border; an odd pixel of it is right or below."""
    columns, rows = _centred(image.width, side), _centred(image.height, side)
    if len(columns) < image.width or len(rows) < image.height:
        image = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    return _in_the_middle(image, side, (0, 0, 0))


def _in_the_middle(image: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """Paste an image into the middle of a square of that colour; an odd pixel of it is right or below."""
    if image.size == (side, side):
        return image
    padded = Image.new("RGB", (side, side), colour)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def _byte(value: float) -> int:
    return min(255, max(0, round(255 * value)))


def _finite(value: Any) -> bool:
    # No comparison with NaN is true. Integers may be too large for a float.
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= LARGEST
