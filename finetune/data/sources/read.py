"""What a recipe's ``data.source`` may be: a known set, one of torchvision's, a folder or a CSV file."""

import dataclasses
from pathlib import Path

from finetune.data.dataset import DEFAULT_OPTIONS, Source, SourceOptions
from finetune.data.sources.folders.read import read_folder
from finetune.data.sources.named.known import read_known
from finetune.data.sources.named.torchvision_sets import TORCHVISION_PREFIX, read_torchvision
from finetune.data.sources.tables.read import has_column, read_table
from finetune.disk.nearby import did_you_mean, is_recipe
from finetune.errors import DataError, printable
from finetune.recipe.catalog import DRAWN, KNOWN_SETS

ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
# What lists of images and recipes end in, among the things that a source may have been meant to be.
TABLES = (".csv", ".tsv", ".txt", ".parquet")
RECIPES = (".yaml", ".yml")


def read_source(source: str, reading: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Read what a recipe's ``data.source`` names: a known set, ``torchvision:NAME``, a folder, or a CSV file.

    Raises:
        DataError: there is no such thing, or it does not make a data set; the message says why. Or
            ``reading`` says of it what holds of something else.
    """
    if source.startswith(TORCHVISION_PREFIX):
        _check_reading(source, reading)
        return read_torchvision(source.removeprefix(TORCHVISION_PREFIX))
    if not is_path(source):
        _check_reading(source, reading)
        return read_known(source)
    path = _existing(source)
    _check_reading(source, reading, path)
    if path.is_dir():
        return read_folder(path, as_classes=reading.as_classes)
    return read_table(path, reading)


def read_other_source(source: str, reading: SourceOptions) -> Source:
    """As :func:`read_source`, of another source than the one of which ``reading`` was said: what it says of
    folders holds of a folder, and of a column where there is such a column.

    Raises:
        DataError: as :func:`read_source`.
    """
    table = csv_path(source)
    if table is not None:
        column = reading.split_column
        known = column in (None, "none") or has_column(table, column)
        return read_table(table, dataclasses.replace(reading, split_column=column if known else None))
    is_folder = is_path(source) and Path(source).expanduser().is_dir()
    return read_source(source, SourceOptions(as_classes=reading.as_classes and is_folder))


def csv_path(source: str, reading: SourceOptions = DEFAULT_OPTIONS) -> Path | None:
    """The CSV file that a source names; None if it names something else.

    Raises:
        DataError: there is no such thing.
    """
    if not is_path(source):
        return None
    path = _existing(source)
    _check_reading(source, reading, path)
    return path if path.is_file() else None


def _existing(source: str) -> Path:
    """The folder or file that a source names."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return path
        if path.is_file():
            if path.suffix.lower() in ARCHIVES:
                raise DataError(f"{printable(source)}: an archive. Unpack it and give the folder.")
            return path
        # What is there, but neither folder nor file, raises no error here.
        path.stat()
    except FileNotFoundError:
        raise DataError(_no_such(source)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{printable(source)}: {getattr(error, 'strerror', None) or error}") from None
    raise DataError(f"{printable(source)}: neither a folder nor a CSV file")


def _check_reading(source: str, reading: SourceOptions, path: Path | None = None) -> None:
    """What a user says of the columns of a folder, or of the folders of a table, is a mistake."""
    if reading.as_classes and not (path is not None and path.is_dir()):
        raise DataError(f"{printable(source)}: data.layout says how folders are read, and this is no folder.")
    if reading.split_column not in (None, "none") and not (path is not None and path.is_file()):
        raise DataError(
            f"{printable(source)}: data.split_column is the name of a column, and this is no CSV file."
        )


def is_path(source: str) -> bool:
    """Whether ``source`` is a path, and not the name of a data set."""
    return not source.startswith(TORCHVISION_PREFIX) and source not in (*KNOWN_SETS, DRAWN)


def _no_such(source: str) -> str:
    looked_at = Path(source).expanduser().absolute()

    def accepts(path: str) -> bool:
        # Of a source that looks like a recipe, as `probe` takes one too, a recipe is what was meant.
        return (
            Path(path).is_dir()
            or path.lower().endswith(TABLES)
            or (source.lower().endswith(RECIPES) and is_recipe(path))
        )

    hint = did_you_mean(source, accepts, [] if "/" in source else KNOWN_SETS)
    return (
        f"{printable(source)}: no such file or folder (looked at {printable(str(looked_at))}).{hint} "
        f"A source is a folder, a CSV file, a known set ({', '.join(KNOWN_SETS)}) "
        f"or a torchvision set ({TORCHVISION_PREFIX}CIFAR10)."
    )
