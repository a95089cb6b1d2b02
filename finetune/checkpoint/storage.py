"""Save and open checkpoints.

A checkpoint is a folder, such as ``checkpoints/last``. Every checkpoint has these files:

- ``model.safetensors``: the weights to evaluate with (the moving average, if the recipe has one).
- ``card.json``: the card, which describes the network (:mod:`finetune.checkpoint.card`).
- ``manifest.json``: the SHA-256 of all other files (:mod:`finetune.checkpoint.manifest`).

A checkpoint to resume from also has ``state.json`` (the position in the run), ``optimizer.safetensors``, and
``raw.safetensors`` (the weights without the moving average, if there is one). The best checkpoint also has
``score.json``, and at the end of the run ``val.safetensors``, the logits of val, and ``novelty.safetensors``,
features of training images. Tensors are safetensors and everything else is JSON; nothing is pickled.

A save is atomic. It writes all files to a temporary folder beside the final one, the manifest last, flushes
them to disk and renames the folder. On request, the checkpoint that it replaces stays as ``NAME.previous``.
Opening verifies the manifest. If ``NAME`` is damaged or missing, ``NAME.previous`` is opened instead, with a
warning.
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

from finetune.checkpoint.manifest import MANIFEST, digest, find_damage
from finetune.disk.atomic import TEMPORARY, sync
from finetune.disk.regular import DOCUMENT_BYTES, check_regular, read_regular
from finetune.errors import CheckpointError, SaveError, printable

MODEL = "model.safetensors"
CARD = "card.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
RAW = "raw.safetensors"
SCORE = "score.json"
# The logits of val, of the best checkpoint of a finished run.
VAL = "val.safetensors"
# The features of training images with which others are compared, likewise.
NOVELTY = "novelty.safetensors"
PREVIOUS = ".previous"
# The files that every checkpoint has beside its manifest.
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
    """Save the checkpoint ``folder / name`` and return its path.

    Args:
        tensors: file name to the tensors of that safetensors file.
        documents: file name to the content of that JSON file.
        keep_previous: keep the checkpoint that is replaced, as ``NAME.previous``.

    Raises:
        SaveError: the disk is full or cannot be written. The checkpoint that was there before is intact.
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
            # safetensors creates files that only their owner may read.
            shutil.copymode(temporary / next(iter(documents)), temporary / file)
        digests = {path.name: digest(path) for path in sorted(temporary.iterdir())}
        for path in temporary.iterdir():
            sync(path)
        (temporary / MANIFEST).write_text(_json({"sha256": digests}), encoding="utf-8")
        sync(temporary / MANIFEST)
        sync(temporary)
        # A kill between the two renames leaves only NAME.previous, which open_checkpoint then opens.
        previous = folder / (name + PREVIOUS)
        if final.exists():
            shutil.rmtree(previous, ignore_errors=True)
            final.rename(previous)
        temporary.rename(final)
        if not keep_previous:
            shutil.rmtree(previous, ignore_errors=True)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(
            f"{printable(final)}: cannot be saved ({error}). The checkpoint before it is intact; make room "
            "and --resume."
        ) from error
    return final


def restore_previous(opened: Path) -> None:
    """If ``opened`` is a ``NAME.previous``, replace the damaged checkpoint ``NAME`` with it.

    Otherwise the next save would keep the damaged checkpoint and remove the only intact one.

    Raises:
        SaveError: the disk cannot be written.
    """
    final = opened.with_name(opened.name.removesuffix(PREVIOUS))
    if opened == final or not final.exists():
        return
    try:
        damaged = final.rename(final.with_name(f"{TEMPORARY}damaged-{final.name}"))
        opened.rename(final)
        sync(final.parent)
    except OSError as error:
        raise SaveError(f"{printable(final)}: cannot be replaced by the one before it ({error}).") from error
    shutil.rmtree(damaged, ignore_errors=True)


def open_checkpoint(folder: Path, name: str) -> Path | None:
    """Verify the checkpoint ``folder / name`` and return its path.

    If it is damaged or missing, return its ``NAME.previous``, with a warning if it is damaged. Return None if
    neither exists. Only for the training that writes these checkpoints: for any other process, a training
    may replace them at any time (:func:`finetune.checkpoint.manifest.read_unchanged`).

    Raises:
        CheckpointError: a checkpoint exists, and neither it nor the one before it is intact.
    """
    path, damage = find_checkpoint(folder, name)
    warn_of_damage(path, damage)
    return path


def find_checkpoint(folder: Path, name: str) -> tuple[Path | None, str | None]:
    """Find a checkpoint as :func:`open_checkpoint` does; return its path and the damage to warn of."""
    damage = None
    for path in checkpoint_folders(folder, name):
        try:
            if not path.is_dir():
                continue
        except OSError as error:
            raise CheckpointError(f"{printable(path)}: cannot be read ({error.strerror}).") from None
        problem = find_damage(path, NEEDED)
        if problem is None:
            return path, damage
        damage = damage or problem
    if damage is not None:
        raise CheckpointError(f"{damage}, and there is no intact one before it.")
    return None, None


def checkpoint_folders(folder: Path, name: str) -> list[Path]:
    """The folders that may hold checkpoint ``name``, the newest first."""
    return [folder / name, folder / (name + PREVIOUS)]


def warn_of_damage(path: Path | None, damage: str | None) -> None:
    """Warn if :func:`find_checkpoint` found damage and fell back to ``path``."""
    if damage is not None:
        log.warning("%s; using the checkpoint before it, %s", damage, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises:
        CheckpointError: the file is missing or is not safetensors.
    """
    try:
        check_regular(path)
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read as safetensors ({error}).") from None


def read_document(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        CheckpointError: the file is missing or is not JSON.
    """
    try:
        return json.loads(read_regular(path, DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{printable(path)}: cannot be read as JSON ({error}).") from None


def load_weights(module: nn.Module, weights: Tensors, where: Path) -> None:
    """Load a complete ``state_dict`` into ``module``, or nothing. ``where`` names the file in errors.

    Raises:
        CheckpointError: a tensor is missing or unknown, has another shape or type, or is not finite.
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
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise CheckpointError(
            f"{printable(where)}: does not fit the network: {'; '.join(sorted(problems)[:5])}."
        )
    module.load_state_dict(dict(weights))


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
