"""Read any source that a recipe's ``data.source`` can name. This is the one dispatch over kinds of sources.

A new kind of source is one sub-room with a reader that returns a :class:`~finetune.data.dataset.Source`, and
one branch in :func:`read_source`.
"""

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
# Extensions of the files that a hint for a mistyped source may suggest.
TABLES = (".csv", ".tsv", ".txt", ".parquet")
RECIPES = (".yaml", ".yml")


def read_source(source: str, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Read a known set, ``torchvision:NAME``, a folder or a CSV file.

    Raises:
        DataError: the source does not exist, is not a valid data set, or does not fit the options.
    """
    if source.startswith(TORCHVISION_PREFIX):
        _check_options(source, options)
        return read_torchvision(source.removeprefix(TORCHVISION_PREFIX))
    if not is_path(source):
        _check_options(source, options)
        return read_known(source)
    path = _existing_path(source)
    _check_options(source, options, path)
    if path.is_dir():
        return read_folder(path, as_classes=options.as_classes)
    return read_table(path, options)


def read_other_source(source: str, options: SourceOptions) -> Source:
    """Read a source with options that were given for another one; options that do not apply are ignored.

    Raises:
        DataError: as :func:`read_source`.
    """
    table = csv_path(source)
    if table is not None:
        column = options.split_column
        known = column in (None, "none") or has_column(table, column)
        return read_table(table, dataclasses.replace(options, split_column=column if known else None))
    is_folder = is_path(source) and Path(source).expanduser().is_dir()
    return read_source(source, SourceOptions(as_classes=options.as_classes and is_folder))


def csv_path(source: str, options: SourceOptions = DEFAULT_OPTIONS) -> Path | None:
    """The path of the CSV file that ``source`` names; None if it names something else.

    Raises:
        DataError: the source does not exist.
    """
    if not is_path(source):
        return None
    path = _existing_path(source)
    _check_options(source, options, path)
    return path if path.is_file() else None


def _existing_path(source: str) -> Path:
    """The folder or file that ``source`` names; DataError if there is none."""
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return path
        if path.is_file():
            if path.suffix.lower() in ARCHIVES:
                raise DataError(f"{printable(source)}: an archive. Unpack it and give the folder.")
            return path
        # Raises nothing for what exists but is neither a folder nor a file.
        path.stat()
    except FileNotFoundError:
        raise DataError(_not_found_message(source)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{printable(source)}: {getattr(error, 'strerror', None) or error}") from None
    raise DataError(f"{printable(source)}: neither a folder nor a CSV file")


def _check_options(source: str, options: SourceOptions, path: Path | None = None) -> None:
    """Refuse options that do not apply to the kind of source."""
    if options.as_classes and not (path is not None and path.is_dir()):
        raise DataError(f"{printable(source)}: data.layout applies to folders only. Remove it.")
    if options.split_column not in (None, "none") and not (path is not None and path.is_file()):
        raise DataError(f"{printable(source)}: data.split_column applies to CSV files only. Remove it.")


def is_path(source: str) -> bool:
    """Whether ``source`` is a path rather than the name of a data set."""
    return not source.startswith(TORCHVISION_PREFIX) and source not in (*KNOWN_SETS, DRAWN)


def _not_found_message(source: str) -> str:
    searched = Path(source).expanduser().absolute()

    def accepts(path: str) -> bool:
        # `probe` accepts recipes too, so suggest a recipe for a name that looks like one.
        return (
            Path(path).is_dir()
            or path.lower().endswith(TABLES)
            or (source.lower().endswith(RECIPES) and is_recipe(path))
        )

    hint = did_you_mean(source, accepts, [] if "/" in source else KNOWN_SETS)
    return (
        f"{printable(source)}: no such file or folder (searched for {printable(str(searched))}).{hint} "
        f"A source is a folder, a CSV file, a known set ({', '.join(KNOWN_SETS)}) "
        f"or a torchvision set ({TORCHVISION_PREFIX}CIFAR10)."
    )
