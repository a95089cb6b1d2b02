"""A run -> one file to use elsewhere, which gets its name only after it was found to agree with the model."""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.agreement import Agreement, check_agreement, check_images
from finetune.deploy.onnx_classifier import OnnxClassifier, first_line
from finetune.deploy.predict import Classifier
from finetune.deploy.torch_classifier import TorchClassifier
from finetune.deploy.write_onnx import check_opset, write_onnx
from finetune.deploy.write_torch import CONFIG, open_pt2, open_safetensors, write_pt2, write_safetensors
from finetune.disk.outputs import publish, staging, unwritable
from finetune.disk.regular import DOCUMENT_BYTES, read_regular
from finetune.errors import (
    CheckpointError,
    ExportError,
    FinetuneError,
    MissingExtraError,
    UserError,
    printable,
    require_known,
)
from finetune.training.trained import Trained

Format = Literal["onnx", "pt2", "safetensors"]
Write = Callable[[nn.Module, ModelCard, Path], None]
Open = Callable[[Path], Classifier]

FORMATS: dict[Format, tuple[Write, Open]] = {
    "onnx": (write_onnx, OnnxClassifier),
    "pt2": (write_pt2, open_pt2),
    "safetensors": (write_safetensors, open_safetensors),
}
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """What was written (the model first), its size in bytes, and how well it agrees on which images."""

    files: tuple[Path, ...]
    size: int
    agreement: Agreement
    checked_on: str


def export(trained: Trained, format: Format, target: Path, opset: int | None = None) -> Exported:
    """Write ``trained`` (on the CPU) to ``target`` in ``format``, and check it before it gets that name.

    Args:
        opset: of ONNX; None: what most runtimes read.

    Raises:
        UserError: there is no such ``opset`` here, ``target`` cannot be written, or its ``config.json`` would
            replace someone else's.
        SaveError: the disk is full or failing; nothing is left behind.
        MissingExtraError: the ONNX packages are not installed.
        ExportError: the network cannot be exported, or the file disagrees with it; nothing is left behind.
    """
    require_known("format", format, tuple(FORMATS))
    write, reopen = FORMATS[format]
    if format == "onnx":
        _require_onnx()
        if opset is not None:
            check_opset(opset)
            write = partial(write_onnx, opset=opset)
    if format == "safetensors":
        _check_config(target.with_name(CONFIG))
    model = TorchClassifier(trained.module, trained.card, torch.device("cpu"))
    with staging(target) as stage:
        staged = stage / target.name
        images, checked_on = check_images(trained)
        agreement = _write_and_check(model, trained, format, (write, reopen), staged, target, images)
        # The model comes last: until then nobody looks at what lies beside it.
        files = sorted(stage.iterdir(), key=lambda file: file == staged)
        size = sum(file.stat().st_size for file in files)
        _publish_all(files, target)
    return Exported(
        tuple(target.with_name(file.name) for file in reversed(files)), size, agreement, checked_on
    )


def _publish_all(files: list[Path], target: Path) -> None:
    """Bring files to their places beside ``target``; where one fails, none stays that is new."""
    made = []
    try:
        for file in files:
            place = target.with_name(file.name)
            is_new = not os.path.lexists(place)
            publish(file, place)
            made += [place] if is_new else []
    except FinetuneError:
        for place in made:
            place.unlink(missing_ok=True)
        raise


def _write_and_check(
    model: Classifier,
    trained: Trained,
    format: Format,
    there_and_back: tuple[Write, Open],
    staged: Path,
    target: Path,
    images: NDArray[np.float32],
) -> Agreement:
    write, reopen = there_and_back
    try:
        write(trained.module, trained.card, staged)
        return check_agreement(model, reopen(staged), images)
    except CheckpointError as error:
        raise ExportError(f"the exported file cannot be used: {error}") from error
    except FinetuneError:
        raise
    except Exception as error:
        if (fault := _system_error(error)) is not None:
            raise unwritable(target, fault) from error
        # torch's exporters and runtimes raise errors of many kinds for a network that they cannot take.
        raise ExportError(f"this network cannot be exported to {format}: {first_line(error)}") from error


def _system_error(error: BaseException | None) -> OSError | None:
    """What the system refused, where ``error`` came of that; safetensors says it in words alone."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        if isinstance(error, SafetensorError) and (number := _SYSTEM_ERROR.search(str(error))):
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def _require_onnx() -> None:
    for package in ONNX_PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Exporting to ONNX", package, "onnx")


def _check_config(config: Path) -> None:
    if not config.exists():
        return
    try:
        ModelCard.from_dict(json.loads(read_regular(config, DOCUMENT_BYTES)), str(config))
    except (OSError, ValueError, RecursionError, CheckpointError):
        raise UserError(
            f"{printable(config)} is there already and does not describe a model of finetune. Choose "
            "another folder."
        ) from None
