"""Read the metadata of an ONNX file and the names of the weight files that it refers to. Torch-free.

This happens before a runtime opens the file, because a runtime opens every file that the model names. The
code walks the protocol buffer by field numbers, as in ``onnx.proto``, and skips the weights. It needs no
package, so it works where only ``onnxruntime`` is installed, and it touches no other file.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.disk.regular import open_regular
from finetune.errors import CheckpointError, printable

# Message -> field number -> the message in that field. All other fields are skipped.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 14: "metadata", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "external"},
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEY, _VALUE = 1, 2


@dataclass(frozen=True)
class OnnxFile:
    """The outline of an ONNX file.

    Attributes:
        metadata: the metadata of the model.
        locations: the names of weight files, unchecked.
    """

    metadata: dict[str, str]
    locations: tuple[str, ...]


def read_outline(path: Path) -> OnnxFile:
    """Read the outline of the ONNX file at ``path``.

    Raises:
        CheckpointError: the file cannot be read or is not an ONNX model.
    """
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _outline(content)
    except OSError as error:
        raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from None
    except ValueError:
        raise CheckpointError(f"{printable(path)}: not an ONNX model.") from None


def check_locations(path: Path, locations: tuple[str, ...]) -> None:
    """Check that all weight files of the model at ``path`` lie beside it.

    Raises:
        CheckpointError: a location is not the bare name of a regular file in the folder of the model.
    """
    folder = path.parent.resolve()
    for location in sorted(set(locations)):
        bare = location not in ("", ".", "..") and not any(letter in location for letter in "/\\:\0")
        if not bare or (folder / location).resolve().parent != folder:
            raise CheckpointError(
                f"{printable(path)}: refused. It names a weight file {location!r} outside of its folder."
            )
        if not (folder / location).is_file():
            raise CheckpointError(
                f"{printable(path)}: its weights are in {location!r}, which is not beside it."
            )


def _outline(content: mmap.mmap) -> OnnxFile:
    metadata: dict[str, str] = {}
    locations: list[str] = []
    has_graph = False
    # A stack instead of recursion: the file decides how deep it nests.
    pending = [("model", 0, len(content))]
    while pending:
        message, start, end = pending.pop()
        if message in ("metadata", "external"):
            keys, values = _entry(content, start, end)
            if message == "metadata":
                metadata[keys[-1] if keys else ""] = values[-1] if values else ""
            elif "location" in keys:
                locations.extend(values or [""])
            continue
        for field, low, high in _bytes_fields(content, start, end):
            inner = _FIELDS[message].get(field)
            has_graph = has_graph or inner == "graph"
            if inner is not None:
                pending.append((inner, low, high))
    if not has_graph:
        raise ValueError("no graph")
    return OnnxFile(metadata, tuple(locations))


def _entry(content: mmap.mmap, start: int, end: int) -> tuple[list[str], list[str]]:
    """Keys and values of a StringStringEntryProto. A hostile file may have several of each."""
    texts: dict[int, list[str]] = {_KEY: [], _VALUE: []}
    for field, low, high in _bytes_fields(content, start, end):
        if field in texts:
            texts[field].append(content[low:high].decode("utf-8"))
    return texts[_KEY], texts[_VALUE]


def _bytes_fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each length-delimited field of the message in ``position`` to ``end``.

    Raises:
        ValueError: the bytes are not a well-formed message.
    """
    while position < end:
        tag, position = _varint(content, position, end)
        field, kind = tag >> 3, tag & 7
        if field == 0:
            raise ValueError("field 0")
        if kind == _VARINT:
            _, position = _varint(content, position, end)
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        elif kind == _BYTES:
            length, position = _varint(content, position, end)
            if position + length > end:
                raise ValueError("a field beyond its message")
            yield field, position, position + length
            position += length
        else:
            raise ValueError(f"wire type {kind}")
    if position != end:
        raise ValueError("a field beyond its message")


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("an endless number")
