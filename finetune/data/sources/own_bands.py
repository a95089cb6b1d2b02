"""Whether a data set's images have bands of their own for ``model.in_channels``, or colours that repeat."""

from finetune.data.sources.dataset import Split
from finetune.data.sources.unread import some_files
from finetune.errors import BadImageError, DataError, printable
from finetune.image.bands import COLOURS, count_bands, is_tiff, require_tifffile


def has_own_bands(split: Split, in_channels: int, *, skips: bool = False) -> bool:
    """Whether the files have ``in_channels`` bands each, beyond three; from a look at the headers of some.

    Files of colours have none: with more channels than three, these repeat. What none of the files looked at
    has is an error when it is read.

    Args:
        skips: files that cannot be read as the others are left out, and counted, when it comes to that.

    Raises:
        DataError: files have other bands than ``in_channels``, not as many each, or are arrays and
            ``in_channels`` is not beyond three.
        MissingExtraError: there are bands to be read, and what reads them is not installed.
    """
    paths = some_files(split)
    if in_channels <= COLOURS:
        for path in paths:
            if path.suffix.lower() == ".npy":
                raise DataError(
                    f"{printable(path)}: an array (.npy). Arrays are read where model.in_channels, 4 or "
                    "more, is their "
                    f"number of bands; it is {in_channels}."
                )
        return False
    own, colours, tiffs = "", "", False
    faults: list[str] = []
    for path in paths:
        try:
            bands = count_bands(path, in_channels)
            tiffs = tiffs or is_tiff(path)
        except BadImageError as error:
            # What is no array may be damaged, which is told when it is read.
            if path.suffix.lower() == ".npy":
                faults.append(f"{error.name}: {error.reason}; model.in_channels is {in_channels}.")
            continue
        if bands <= COLOURS:
            colours = colours or str(path)
        elif bands == in_channels:
            own = own or str(path)
        else:
            faults.append(
                f"{printable(path)}: has {bands} bands; model.in_channels: {in_channels} reads files of "
                f"{in_channels} "
                f"bands, or repeats the colours of files that have no others. Set in_channels: {bands}, or 3 "
                "for the first three bands of files that can be read as colours."
            )
    if own and skips:
        faults, colours = [], ""
    if faults:
        raise DataError(faults[0])
    if own and colours:
        raise DataError(
            f"{own}: has {in_channels} bands, as model.in_channels asks for; {colours} has only colours. The "
            "files of one training have as many bands each: leave one kind out."
        )
    if own and tiffs:
        require_tifffile()
    return bool(own)
