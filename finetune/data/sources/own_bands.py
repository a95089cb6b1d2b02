"""Whether a data set's pictures have bands of their own for ``model.in_channels``, or colours that repeat."""

from finetune.data.picture.bands import COLOURS, count_bands, is_tiff, require_tifffile
from finetune.data.sources.dataset import Split
from finetune.data.sources.unread import some_files
from finetune.errors import BadImageError, DataError


def has_own_bands(split: Split, in_channels: int) -> bool:
    """Whether the files have ``in_channels`` bands each, beyond three; from a look at the headers of some.

    Files of colours have none: with more channels than three, these repeat. What none of the files looked at
    has is an error when it is read.

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
                    f"{path}: an array (.npy). Arrays are read where model.in_channels, 4 or more, is their "
                    f"number of bands; it is {in_channels}."
                )
        return False
    found: dict[bool, str] = {}
    tiffs = False
    for path in paths:
        try:
            bands = count_bands(path, in_channels)
            tiffs = tiffs or is_tiff(path)
        except BadImageError as error:
            if error.name.lower().endswith(".npy"):
                raise DataError(f"{error.name}: {error.reason} that model.in_channels asks for.") from None
            continue
        if bands > COLOURS and bands != in_channels:
            raise DataError(
                f"{path}: has {bands} bands; model.in_channels: {in_channels} reads files of {in_channels} "
                f"bands, or repeats the colours of files that have no others. Set in_channels: {bands}, or 3 "
                "for the first three bands of files that can be read as colours."
            )
        found.setdefault(bands > COLOURS, str(path))
    if len(found) > 1:
        raise DataError(
            f"{found[True]}: has {in_channels} bands, as model.in_channels asks for; {found[False]} has only "
            "colours. The files of one training have as many bands each: leave one kind out."
        )
    own = True in found
    if own and tiffs:
        require_tifffile()
    return own
