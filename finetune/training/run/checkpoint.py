"""Checkpoints: safetensors for tensors, JSON for the rest, never pickle; whole or not at all.

A checkpoint is a folder of files and a ``manifest.json`` with their SHA-256, which is written last. The
folder is built under a temporary name beside its final one, flushed to disk and renamed; the one that it
replaces stays as ``NAME.previous`` where that is asked for.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from finetune.disk.regular import DOCUMENT_BYTES, check_regular, read_regular
from finetune.disk.whole import TEMPORARY, sync
from finetune.errors import CheckpointError, RunDirError, SaveError, printable
from finetune.model.manifest import MANIFEST, digest, fault, undisturbed
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.training.card import ModelCard
from finetune.training.compute.precision import place
from finetune.training.run.files import CHECKPOINTS, RESOLVED

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

    None where there is neither. For the process that trains there; others must use :func:`load_trained`,
    since a training replaces its checkpoints.

    Raises:
        CheckpointError: there is one, and neither it nor the one before it is whole.
    """
    path, problem = _find(folder, name)
    _warn(path, problem)
    return path


def _find(folder: Path, name: str) -> tuple[Path | None, str | None]:
    """As :func:`open_checkpoint`, with what to warn of."""
    found = None
    for path in _places(folder, name):
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


def _places(folder: Path, name: str) -> list[Path]:
    return [folder / name, folder / (name + PREVIOUS)]


def _warn(path: Path | None, problem: str | None) -> None:
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


@dataclass(frozen=True)
class Trained:
    """A trained network as ``eval``, ``predict`` and ``export`` take it: eval mode, evaluation weights."""

    module: nn.Module
    card: ModelCard
    run: Path
    checkpoint: str
    recipe: Recipe


def load_trained(
    run: Path, which: Literal["best", "last"] = "best", device: torch.device | None = None
) -> Trained:
    """Rebuild the network of a run and load a checkpoint into it. A training may be going on there.

    With a ``device`` it is placed there to be run; without, it is on the CPU in torch's plain memory format,
    as a file wants it.

    Raises:
        RunDirError: ``run`` is no run directory, or has no such checkpoint yet.
        CheckpointError: the checkpoint is torn, altered or does not fit its own description.
    """
    # Late: building pulls in torchvision, which reading a checkpoint for `--resume` may not need yet.
    from finetune.model.build import rebuild

    if not (run / RESOLVED).is_file():
        raise RunDirError(
            f"{printable(run)}: not a run directory. Give the folder that `finetune train` printed."
        )
    checkpoints = run / CHECKPOINTS

    def read() -> tuple[Path, str | None, ModelCard, dict[str, Tensor], Recipe]:
        folder, problem = _find(checkpoints, which)
        if folder is None:
            raise RunDirError(
                f"{printable(run)}: has no checkpoint '{which}' yet. Finish the run with: finetune train "
                f"{printable(run)}/recipe.yaml "
                f"--run-dir {printable(run)} --resume"
            )
        card = ModelCard.from_dict(read_document(folder / CARD), str(folder / CARD))
        return folder, problem, card, read_tensors(folder / MODEL), load_recipe(run / RESOLVED)

    folder, problem, card, weights, recipe = undisturbed(_places(checkpoints, which), read)
    _warn(folder, problem)
    module = rebuild(card.architecture, len(card.classes))
    load_weights(module, weights, folder / MODEL)
    if device is not None:
        place(module, device)
    return Trained(module.eval(), card, run, which, recipe)


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
