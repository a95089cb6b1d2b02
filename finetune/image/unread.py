"""Data in an image file that is not read: further bands, more than 8 bits per band, further frames.

Every image becomes 8-bit RGB (:mod:`finetune.image.modes`). Satellite and microscope images may lose data by
this, so their owner should know. The header alone shows it, before anything is decoded.
"""

from typing import Any, NamedTuple

from PIL import Image

from finetune.image.modes import full_range
from finetune.image.tiff import BITS, SAMPLES, most_bits

# Formats whose further frames are images of their own. In others, such as MPO, they are previews.
FRAMED = frozenset({"TIFF", "GIF", "WEBP", "PNG", "AVIF"})


class UnreadData(NamedTuple):
    """Data that is not read.

    Attributes:
        kind: ``bands``, ``bits`` or ``frames``.
        message: the data that the file has, and the part of it that is read.
    """

    kind: str
    message: str


def unread_data(image: Image.Image) -> tuple[UnreadData, ...]:
    """The data of each pixel that is not read. The image must be open and not decoded yet."""
    found = []
    bands, read = _stored_bands(image), len(image.getbands())
    if bands > read:
        found.append(UnreadData("bands", f"{bands} bands, of which the first {read} are read"))
    if (bits := _bits(image)) == 16:
        full = full_range(image) or 65_535
        bits = 12 if full == 4095 else 16
        found.append(UnreadData("bits", f"{bits} bits per band, of which 8 are read ({full:,} becomes 255)"))
    elif bits > 16:
        found.append(
            UnreadData(
                "bits",
                "numbers of 32 bits, of which 8 are read (0 to 65,535, or fractions up to 1, 255 or 65,535, "
                "become 0 to 255; a larger range is stretched from the minimum of the image to its maximum)",
            )
        )
    return tuple(found)


def unread_frames(image: Image.Image) -> tuple[UnreadData, ...]:
    """The frames or pages that are not read. The image cannot be decoded afterwards."""
    frames = _frames(image)
    if frames < 2:
        return ()
    name = "pages" if image.format == "TIFF" else "frames"
    return (UnreadData("frames", f"{frames} {name}, of which the first is read"),)


def _stored_bands(image: Image.Image) -> int:
    """The number of values per pixel in the file, according to its header. Transparency counts as one."""
    tags: Any = getattr(image, "tag_v2", None)
    decoded = len(image.getbands())
    if image.format != "TIFF" or tags is None:
        return decoded
    samples = tags.get(SAMPLES, decoded)
    return samples if isinstance(samples, int) else decoded


def _bits(image: Image.Image) -> int:
    """Bits per band: 32, 16, or 8 for 8 and fewer."""
    tags: Any = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        most = most_bits(tags.get(BITS, (1,)))
        return 32 if most > 16 else 16 if most > 8 else 8
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        # Pillow has no other mode for a 16-bit PGM.
        return 16 if image.format == "PPM" and image.mode == "I" else 32
    arguments = _decoder_arguments(image)
    if image.format == "PPM":
        return 16 if max((each for each in arguments if isinstance(each, int)), default=0) > 255 else 8
    # Of a 16-bit PNG in colour, Pillow reads the high bytes only.
    return 16 if any(isinstance(each, str) and "16" in each for each in arguments) else 8


def _decoder_arguments(image: Image.Image) -> list[Any]:
    """The arguments that Pillow passes to its decoders. They name the layout of the pixels in the file."""
    found: list[Any] = []
    for tile in getattr(image, "tile", ()):
        found += tile[3] if isinstance(tile[3], tuple) else (tile[3],)
    return found


def _frames(image: Image.Image) -> int:
    if image.format not in FRAMED:
        return 1
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:
        # A damaged later frame does not affect the first.
        return 1
    return frames if isinstance(frames, int) else 1
