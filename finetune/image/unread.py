"""What a file holds beyond what is read of it: bands after the colours, bits after the eighth, more frames.

Images become 8-bit RGB (:mod:`finetune.image.modes`). For most that is all there is; satellite and
microscope images lose something by it, which their owner should know of. Told from the header, before
anything is decoded.
"""

from typing import Any, BinaryIO, NamedTuple

from PIL import Image, TiffImagePlugin

from finetune.image.modes import BITS, SAMPLES, full_range

# Of which the first frame is an image like the others, and not a preview's original.
FRAMED = frozenset({"TIFF", "GIF", "WEBP", "PNG", "AVIF"})


class Unread(NamedTuple):
    """``kind``: ``bands``, ``bits`` or ``frames``; ``message``: what there is, and what is read of it."""

    kind: str
    message: str


class Layout(NamedTuple):
    """Of a TIFF file's first image: bands a pixel, and bits a band."""

    bands: int
    bits: int


def unread(image: Image.Image) -> tuple[Unread, ...]:
    """What is not read of each pixel of an image that is opened and not decoded yet, if anything."""
    found = []
    bands, read = bands_of(image), len(image.getbands())
    if bands > read:
        found.append(Unread("bands", f"{bands} bands, of which the first {read} are read"))
    if (bits := _bits(image)) == 16:
        full = full_range(image) or 65_535
        bits = 12 if full == 4095 else 16
        found.append(Unread("bits", f"{bits} bits a band, of which 8 are read ({full:,} becomes 255)"))
    elif bits > 16:
        found.append(
            Unread(
                "bits",
                "numbers of 32 bits, read with 8 (0 to 65,535, or fractions to 1, 255 or 65,535, become 0 to "
                "255; what goes beyond is stretched from each image's own least to its largest)",
            )
        )
    return tuple(found)


def unread_frames(image: Image.Image) -> tuple[Unread, ...]:
    """The same of frames and pages. It moves about in the file, so nothing can be decoded afterwards."""
    frames = _frames(image)
    if frames < 2:
        return ()
    what = "pages" if image.format == "TIFF" else "frames"
    return (Unread("frames", f"{frames} {what}, of which the first is read"),)


def bands_of(image: Image.Image) -> int:
    """How many numbers the file has for each pixel, as far as its header says; transparency is one."""
    tags: Any = getattr(image, "tag_v2", None)
    own = len(image.getbands())
    if image.format != "TIFF" or tags is None:
        return own
    samples = tags.get(SAMPLES, own)
    return samples if isinstance(samples, int) else own


def tiff_layout(file: BinaryIO) -> Layout | None:
    """Bands and bits of a TIFF file that Pillow may not be able to read; None where it is none."""
    try:
        file.seek(0)
        head = file.read(8)
        if head[2:4] in (b"+\0", b"\0+"):  # BigTIFF
            head += file.read(8)
        directory = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(directory.next)
        directory.load(file)
        bits = directory.get(BITS, (1,))
        return Layout(int(directory.get(SAMPLES, 1)), int(max(bits) if isinstance(bits, tuple) else bits))
    except Exception:
        # Whatever a damaged header makes Pillow raise: it says nothing.
        return None


def _bits(image: Image.Image) -> int:
    """Of each band: 32, 16, or 8 for all that is no more than that."""
    tags: Any = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        bits = tags.get(BITS, (1,))
        most = max(bits) if isinstance(bits, tuple) else bits
        return 32 if most > 16 else 16 if most > 8 else 8
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        # Pillow has no other mode for a 16-bit PGM.
        return 16 if image.format == "PPM" and image.mode == "I" else 32
    arguments = _arguments(image)
    if image.format == "PPM":
        return 16 if max((each for each in arguments if isinstance(each, int)), default=0) > 255 else 8
    # A PNG in colour is read with its high bytes alone.
    return 16 if any(isinstance(each, str) and "16" in each for each in arguments) else 8


def _arguments(image: Image.Image) -> list[Any]:
    """What Pillow hands its decoders: names of how pixels lie in the file among it."""
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
        # A damaged later frame says nothing of the first.
        return 1
    return frames if isinstance(frames, int) else 1
