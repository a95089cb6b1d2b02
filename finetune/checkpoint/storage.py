"""Checkpoints: safetensors for tensors, JSON for the rest, never pickle; whole or not at all.

A checkpoint is a folder of files and a ``manifest.json`` with their SHA-256, which is written last. The
folder is built under a temporary name beside its final one, flushed to disk and renamed; the one that it
replaces stays as ``NAME.previous`` where that is asked for.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from finetune.checkpoint.manifest import MANIFEST, digest, fault
from finetune.disk.atomic import TEMPORARY, sync
from finetune.disk.regular import DOCUMENT_BYTES, check_regular, read_regular
from finetune.errors import CheckpointError, SaveError, printable

MODEL = "model.safetensors"
CARD = "card.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
RAW = "raw.safetensors"
SCORE = "score.json"
PREVIOUS = ".previous"
# What every checkpoint has.
NEEDED = (MODEL, CARD)

log = logging.getLogger("finetune")

Tensors = Mapping[str, Tensor]


def save_checkpoint(
    folder: Path,
    name: str,
    tensors: Mapping[str, Tensors],
    documents: Mapping[str, Any],
    *,
    keep_previous: bool,
) -> Path:
    """Write checkpoint ``name`` below ``folder``: each of ``tensors`` a safetensors file, each document JSON.

    Raises:
        SaveError: the disk is full or cannot be written; what was there before still is.
    """
    final, temporary = folder / name, folder / f"{TEMPORARY}{name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file, content in tensors.items():
            contiguous = {key: value.detach().cpu().contiguous() for key, value in content.items()}
            safetensors.torch.save_file(contiguous, temporary / file)
        for file, document in documents.items():
            (temporary / file).write_text(_json(document), encoding="utf-8")
        for file in tensors:
            # safetensors makes files that only their owner may read.
            shutil.copymode(temporary / next(iter(documents)), temporary / file)
        digests = {path.name: digest(path) for path in sorted(temporary.iterdir())}
        for path in temporary.iterdir():
            sync(path)
        (temporary / MANIFEST).write_text(_json({"sha256": digests}), encoding="utf-8")
        sync(temporary / MANIFEST)
        sync(temporary)
        _swap(temporary, final, keep_previous)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(
            f"{printable(final)}: cannot be saved ({error}). The checkpoint before it is intact; make room "
            "and --resume."
        ) from error
    return final


def _swap(temporary: Path, final: Path, keep_previous: bool) -> None:
    # A kill between the two renames leaves NAME.previous, which open_checkpoint falls back to.
    previous = final.with_name(final.name + PREVIOUS)
    if final.exists():
        shutil.rmtree(previous, ignore_errors=True)
        final.rename(previous)
    temporary.rename(final)
    if not keep_previous:
        shutil.rmtree(previous, ignore_errors=True)


def promote(opened: Path) -> None:
    """Let a checkpoint that :func:`open_checkpoint` fell back to take the place of the harmed one.

    Otherwise the next save would keep the harmed one, and remove the only whole one.

    Raises:
        SaveError: the disk cannot be written.
    """
    final = opened.with_name(opened.name.removesuffix(PREVIOUS))
    if opened == final or not final.exists():
        return
    try:
        harmed = final.rename(final.with_name(f"{TEMPORARY}harmed-{final.name}"))
        opened.rename(final)
        sync(final.parent)
    except OSError as error:
        raise SaveError(f"{printable(final)}: cannot be replaced by the one before it ({error}).") from error
    shutil.rmtree(harmed, ignore_errors=True)


def open_checkpoint(folder: Path, name: str) -> Path | None:
    """The verified folder of checkpoint ``name``, or of the one before it with a warning.

    None where there is neither. For the process that trains there; others must use
    :func:`finetune.training.trained.load_trained`,
    since a training replaces its checkpoints.

    Raises:
        CheckpointError: there is one, and neither it nor the one before it is whole.
    """
    path, problem = find_checkpoint(folder, name)
    warn_of_fallback(path, problem)
    return path


def find_checkpoint(folder: Path, name: str) -> tuple[Path | None, str | None]:
    """As :func:`open_checkpoint`, with what to warn of."""
    found = None
    for path in checkpoint_places(folder, name):
        try:
            if not path.is_dir():
                continue
        except OSError as error:
            raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from None
        problem = fault(path, NEEDED)
        if problem is None:
            return path, found
        found = found or problem
    if found is not None:
        raise CheckpointError(f"{found}, and there is no whole one before it.")
    return None, None


def checkpoint_places(folder: Path, name: str) -> list[Path]:
    return [folder / name, folder / (name + PREVIOUS)]


def warn_of_fallback(path: Path | None, problem: str | None) -> None:
    if problem is not None:
        log.warning("%s; using the checkpoint before it, %s", problem, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, on the CPU.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        check_regular(path)
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read as safetensors ({error}).") from None


def read_document(path: Path) -> Any:
    """A JSON document of a checkpoint.

    Raises:
        CheckpointError: it is not one.
    """
    try:
        return json.loads(read_regular(path, DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read as JSON ({error}).") from None


def load_weights(module: nn.Module, weights: Tensors, where: Path) -> None:
    """Load a complete ``state_dict``: same names, shapes and types, or nothing.

    Raises:
        CheckpointError: anything is missing, left over, of another shape or type, or not finite.
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} is unknown" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        expected, found = own[name], weights[name]
        if expected.shape != found.shape or expected.dtype != found.dtype:
            problems.append(
                f"{name} is {found.dtype} {tuple(found.shape)}, not {expected.dtype} {tuple(expected.shape)}"
            )
        elif found.is_floating_point() and not bool(found.isfinite().all()):
            problems.append(f"{name} holds values that are not finite")
    if problems:
        raise CheckpointError(
            f"{printable(where)}: does not fit the network: {'; '.join(sorted(problems)[:5])}."
        )
    module.load_state_dict(dict(weights))


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
