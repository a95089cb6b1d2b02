"""The header of a TIFF file: the number of bands, and the bits of each."""

from typing import BinaryIO, NamedTuple

from PIL import TiffImagePlugin

# The first bytes of a TIFF or BigTIFF file.
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# TIFF tags, and the value of SAMPLE_FORMAT for signed numbers.
BITS, SAMPLES, SAMPLE_FORMAT, SIGNED = 258, 277, 339, 2


class TiffLayout(NamedTuple):
    """The first image of a TIFF file: bands per pixel, and bits per band."""

    bands: int
    bits: int


def tiff_layout(file: BinaryIO) -> TiffLayout | None:
    """Read the header of a TIFF file, even one that Pillow cannot decode; None if it cannot be read."""
    try:
        file.seek(0)
        head = file.read(8)
        if head[2:4] in (b"+\0", b"\0+"):  # BigTIFF
            head += file.read(8)
        directory = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(directory.next)
        directory.load(file)
        return TiffLayout(int(directory.get(SAMPLES, 1)), most_bits(directory.get(BITS, (1,))))
    except Exception:
        # Pillow raises errors of many kinds on damaged headers.
        return None


def most_bits(bits: int | tuple[int, ...]) -> int:
    """The largest number of bits of any band; some files state one number for all bands."""
    return int(max(bits) if isinstance(bits, tuple) else bits)
