"""The one transform that evaluation, prediction and export share: an image in, the network's input out.

Pillow and NumPy only, so that it computes the same bits where torch is absent. The pixels are those of
torchvision's ``v2.Resize(antialias=True)`` and ``v2.CenterCrop`` on a PIL image.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.image.elongated import resized_window
from finetune.image.threes import ImageOrBands, by_threes, in_threes

ResizeMode = Literal["shorter", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Reads = Literal["colours", "bands"]

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A very elongated image grows to billions of pixels before its centre is cut out. Above this many pixels
# only that centre is computed: the same bits, in bounded time and memory.
WHOLE_PIXELS = 1 << 24
# Of means and stds, which are of values in 0..1: float32 divides by these.
LARGEST, LEAST_STD = 1e6, 1e-12


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop or pad, normalise.

    ``image_size`` is the side of the square that comes out; ``resize`` the size before the crop, of the
    shorter side (``shorter``), of both (``squash``) or of the longer one (``pad``), all in pixels. An image
    that is smaller than the crop gets a black border, as torchvision does it. Under ``pad`` nothing is
    cropped: the whole image, in its own proportions, lies in the middle, and the rest takes
    :attr:`mean_colour`, which is 0 for the network, as what a rotation uncovers in training does.
    ``mean`` and ``std`` are per channel, of values in 0..1. There are as many channels as they have entries:
    three are R, G, B; one is grey (ITU-R 601 luma, as Pillow computes it); beyond three the colours repeat:
    R, G, B, R, ... Where ``reads`` is ``bands``, an image has as many bands of its own, uint8 (height,
    width, channels), and every band goes through all of this alone.

    Raises:
        ValueError: a size below 1, an unknown name, a mean that is not finite or a std that is not positive,
            two channels, not as many means as stds, ``bands`` of three or fewer, or ``pad`` with a ``resize``
            that the square cannot hold.
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
        """Of what comes out."""
        return len(self.mean)

    @property
    def bands(self) -> int | None:
        """What :func:`~finetune.image.bands.open_image` is to be asked for."""
        if self.channels <= 3:
            return None
        return self.channels if self.reads == "bands" else 3

    @property
    def depth(self) -> int:
        """How many numbers of 8 bits a pixel has before :meth:`normalize`."""
        return self.channels if self.reads == "bands" else min(self.channels, 3)

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """What becomes zero, in 8 bits: as a colour, or a number for each band."""
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

        RGB becomes RGB, bands become bands: uint8 (height, width, channels).
        """
        fills = in_threes(self.mean_colour)
        if self.reads == "bands":
            return by_threes(self._pixels(image), lambda three, which: self._fitted(three, fills[which]))
        if not isinstance(image, Image.Image):
            raise ValueError("an RGB image is needed, not an array")
        return self._fitted(image, fills[0])

    def _fitted(self, image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
        if image.mode != "RGB":
            raise ValueError(f"an RGB image is needed, not {image.mode}")
        width, height = self.resized(*image.size)
        method = RESAMPLING[self.interpolation]
        if width * height > WHOLE_PIXELS and width >= image.width and height >= image.height:
            columns, rows = _kept(width, self.image_size), _kept(height, self.image_size)
            image = resized_window(image, (width, height), columns, rows, method)
        elif (width, height) != image.size:
            image = image.resize((width, height), method)
        if self.resize_mode == "pad":
            return _in_the_middle(image, self.image_size, fill)
        return _centre_crop(image, self.image_size)

    def colours(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The colours that :meth:`normalize` starts from: (height, width, 3) as they are, or made grey."""
        if self.channels > 1:
            return rgb
        return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.uint8)[:, :, None]

    def normalize(self, image: ImageOrBands) -> npt.NDArray[np.float32]:
        """``(x / 255 - mean) / std`` of an image: float32 (channels, height, width), C-contiguous."""
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
        """The network's input: float32, shape (channels, image_size, image_size), C-contiguous."""
        return self.normalize(self.geometry(image))

    @property
    def in_words(self) -> str:
        """How images are brought to size, for a line on the screen."""
        how = {
            "shorter": f"shorter side to {self.resize}",
            "squash": f"squashed to {self.resize} x {self.resize}",
            "pad": f"whole, longer side to {self.resize}, the rest filled",
        }[self.resize_mode]
        return f"{self.image_size} px ({how}, {self.interpolation})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; :meth:`from_dict` reads it back."""
        facts = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        if self.reads == "colours":
            # Models of earlier versions, which knew nothing else, keep their description to the letter.
            del facts["reads"]
        return facts

    @classmethod
    def from_dict(cls, value: Any) -> "Preprocessing":
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: not a mapping, an entry missing, unknown or of the wrong kind.
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
        """(width, height) before the crop, rounded as torchvision does: the longer side down.

        Under ``pad`` the shorter one is rounded to the nearest pixel, and at least 1.
        """
        if self.resize_mode == "squash":
            return self.resize, self.resize
        if self.resize_mode == "pad":
            shorter = max(1, round(self.resize * min(width, height) / max(width, height)))
            return (shorter, self.resize) if width <= height else (self.resize, shorter)
        longer = int(self.resize * max(width, height) / min(width, height))
        return (self.resize, longer) if width <= height else (longer, self.resize)


def _kept(size: int, wanted: int) -> range:
    """What a centre crop keeps of one side, rounded as torchvision does (halves to even)."""
    start = round((size - wanted) / 2.0) if size > wanted else 0
    return range(start, min(start + wanted, size))


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Cut the centre out, and put a black border where the image is smaller: left and top never wider."""
    columns, rows = _kept(image.width, side), _kept(image.height, side)
    if len(columns) < image.width or len(rows) < image.height:
        image = image.crop((columns.start, rows.start, columns.stop, rows.stop))
    return _in_the_middle(image, side, (0, 0, 0))


def _in_the_middle(image: Image.Image, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """A square of that colour with the image, which is no larger, in it: left and top never wider."""
    if image.size == (side, side):
        return image
    padded = Image.new("RGB", (side, side), colour)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def _byte(value: float) -> int:
    return min(255, max(0, round(255 * value)))


def _finite(value: Any) -> bool:
    # NaN compares with nothing; a whole number of any length does, and is no float.
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= LARGEST
