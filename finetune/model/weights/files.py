"""Reads files of weights without running code from them.

safetensors or torch's ``weights_only`` reader reads a file. A pickle that contains anything but tensors and
plain values is refused.
"""

import argparse
import contextlib
import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from finetune.disk.regular import check_regular, open_regular
from finetune.errors import WeightsError, first_line, printable

SUFFIXES = (".pt", ".pth", ".safetensors")
# What the readers raise for a damaged or hostile file.
UNREADABLE = (
    pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    EOFError, OSError, ArithmeticError, MemoryError, ImportError,
)  # fmt: skip
_HASH = re.compile(r"-([0-9a-f]{8,})\.")


def read_file(path: Path) -> Any:
    """Read a checkpoint file onto the CPU.

    Raises:
        WeightsError: the file has another suffix, is damaged, or contains more than tensors and plain values.
    """
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{printable(path)}: a checkpoint must be a {', '.join(SUFFIXES)} file. If this .ckpt, .bin or "
            f".pth.tar file was written by torch.save, rename it to .pth."
        )
    with _reading(path):
        check_regular(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Training scripts save their arguments too. A Namespace contains attributes and nothing else.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)


def check_hash(path: Path) -> None:
    """Compare a file with the first digits of its SHA-256, if its name contains them.

    Raises:
        WeightsError: the digits differ.
    """
    expected = _HASH.search(path.name)
    if expected is None:
        return
    with _reading(path), open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected.group(1)):
        raise WeightsError(
            f"{printable(path)}: is damaged or not the published file (its SHA-256 begins {digest[:8]}, not "
            f"{expected.group(1)}). Replace it, or delete it to download or install it again."
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # torch warns about oddities of a file. Only whether it can be read matters here.
            warnings.simplefilter("ignore")
            yield
    except UNREADABLE as error:
        # torch's own message advises to switch this protection off.
        if "weights_only" in str(error) or "Weights only" in str(error):
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({foreign.group(1)})" if foreign else ""
            raise WeightsError(
                f"{printable(path)}: refused. It is damaged or contains more than tensors{what}, and reading "
                f"that could run code. Save its state_dict alone, with safetensors or torch.save."
            ) from None
        raise WeightsError(f"{printable(path)}: cannot be read ({first_line(error)})") from None
