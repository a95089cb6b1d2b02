"""The export formats by name. This file loads no torch, so that a wrong request is refused at once."""

from enum import StrEnum
from pathlib import Path

from finetune.errors import UserError, printable, require_known

# The operator set that torch's exporter writes natively. onnxruntime reads it since 1.14 (February 2023).
# Converters to older sets fail on most networks.
OPSET = 18


class Format(StrEnum):
    """A file format, and the extension of its files. :data:`finetune.deploy.export.FORMATS` writes them."""

    onnx = "onnx"
    pt2 = "pt2"
    safetensors = "safetensors"


def choose_format(name: str | None, target: Path | None) -> Format:
    """Return the format ``name``, or else that of the extension of ``target``; onnx if both are None.

    Raises:
        UserError: no format has this extension, or it is not that of ``name``.
        FinetuneError: ``name`` is unknown.
    """
    if name is not None:
        require_known("format", name, tuple(Format))
    if target is None:
        return Format(name or Format.onnx)
    extension = target.suffix.lower().removeprefix(".")
    if extension not in Format.__members__:
        known = ", ".join(f".{each}" for each in Format)
        raise UserError(f"{printable(target)}: must end in one of {known}.")
    if name not in (None, extension):
        raise UserError(f"{printable(target)}: a file of the format {name} must end in .{name}.")
    return Format(extension)


def check_opset(format: str, opset: int | None) -> None:
    """Check that files of ``format`` have an operator set, and that ``opset`` is not too old to be written.

    Raises:
        UserError: it is not so.
    """
    if opset is None:
        return
    if format != Format.onnx:
        raise UserError(f"opset {opset}: belongs to format onnx, not to {format}.")
    if opset < OPSET:
        raise UserError(
            f"opset {opset}: must be at least {OPSET}, the oldest that torch's exporter writes. "
            "onnxruntime reads it since 1.14 (2023)."
        )
