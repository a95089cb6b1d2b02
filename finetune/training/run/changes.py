"""Find the changes since a run began, and refuse those that it must not continue with."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from finetune.errors import FinishedRunError, RunDirError, printable
from finetune.recipe.schema import Recipe
from finetune.training.run.directory import RunDir
from finetune.training.run.files import RECIPE
from finetune.training.run.own_data import OwnData
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")

# The entries of environment.json that must stay the same for bit-identical results.
PINNED = ("threads", "device", "precision", "memory_format", "cpu_capability", "cpu_kernels", "versions")
# A change in one of these gives checkpoints other tensors: not even --force continues.
NEVER = ("classes", "recipe model.backbone", "recipe train.ema")


@dataclass(frozen=True)
class Changes:
    """The differences from what a run began with, one line each: in its recipe, its data and its machine."""

    recipe: list[str]
    data: list[str]
    machine: list[str]

    @property
    def all(self) -> list[str]:
        return [*self.recipe, *self.data, *self.machine]


def find_changes(
    begun: Recipe, setup: Setup, known: Mapping[str, Any], environment: Mapping[str, Any], own: OwnData
) -> Changes:
    """Find the changes, since the run began, in everything that its results depend on.

    Args:
        begun: the recipe that the run began with.
        known: the environment that the run began in.
        environment: the present environment.
        own: the run's images as they are now.
    """
    recipe = [f"recipe {line}" for line in differences(begun, setup.recipe)]
    changed = [f"images: {line}" for line in own.changes.lines()]
    changed.extend(_differences(known.get("classes"), list(own.classes), "classes"))
    machine: list[str] = []
    for name in PINNED:
        if name in known:
            machine.extend(_differences(known[name], environment[name], name))
    if setup.start and known.get("start_fingerprint") != environment["start_fingerprint"]:
        machine.append("model.weights: not the weights that the run began with, and l2_sp needs those")
    return Changes(recipe, changed, machine)


def refuse_changes(run: RunDir, changed: list[str], *, force: bool, extend: bool = False) -> None:
    """Refuse to continue with another recipe, data set or library: the result would not be that of one run.

    Args:
        force: continue in spite of the changes, unless the checkpoint cannot fit any more.
        extend: the user asked for ``--extend`` on a run that is not finished.

    Raises:
        RunDirError: something has changed; the message lists it.
    """
    if not changed:
        return
    listed = "\n  ".join(changed)
    lost = [name for name in NEVER if any(line.startswith(name) for line in changed)]
    if force and not lost:
        log.warning("%s: continuing, although this has changed:\n  %s", run.path, listed)
        return
    choice = (
        f"--force does not help where {' and '.join(lost)} changed"
        if lost
        else "--force continues all the same, but the result is that of neither recipe"
    )
    first_finish = " --extend needs a finished run: let this one finish first."
    raise RunDirError(
        f"{printable(run.path)}: cannot continue, because this has changed:\n  {listed}\n"
        f"Put it back (the recipe is in {printable(run.path / RECIPE)}), start over with --overwrite, or "
        f"choose another --run-dir; {choice}.{first_finish if extend else ''}"
    )


def refuse_finished(run: RunDir, setup: Setup, changes: Changes, *, longer: bool, extend: bool) -> NoReturn:
    """Refuse to continue a finished run with another recipe or other data.

    Args:
        longer: only the length of the training has changed.
        extend: the user asked for ``--extend``, and more than the length has changed.

    Raises:
        FinishedRunError: always.
    """
    listed = "\n  ".join(changes.all)
    another_model = any(line.startswith("recipe model.") for line in changes.recipe)
    if longer:
        place = printable(run.path)
        remedy = (
            f"To train it longer, run `finetune train` on this recipe, --run-dir {place} --resume --extend"
        )
    elif another_model:
        remedy = "Start over with --overwrite, or choose another --run-dir"
    else:
        remedy = f"To start from its weights, use another --run-dir and model.weights: {printable(run.path)}"
    if extend:
        remedy = f"--extend adds epochs to the last phase, or phases after it. {remedy}"
        if not another_model:
            remedy += "; --force extends the run all the same"
    head = setup.recipe.model.head
    raise FinishedRunError(
        f"{printable(run.path)}: this run is finished, and this has changed since:\n  {listed}\n"
        f"Nothing was done. {remedy}",
        longer=longer,
        weights=not another_model,
        reuse=head.type == "linear" and not head.hidden and head.at is None,
    )


def differences(before: Recipe, now: Recipe) -> list[str]:
    """The keys that differ, with both values; without ``cache``, which changes no result."""
    return _differences(before.model_dump(exclude={"cache"}), now.model_dump(exclude={"cache"}))


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict) and (before.keys() <= now.keys()):
        return [
            line
            for name in now
            for line in _differences(before.get(name), now[name], f"{path}.{name}" if path else name)
        ]
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (old, new) in pairs for line in _differences(old, new, f"{path}[{i}]")]
    return [] if before == now else [f"{path}: {before!r} before, {now!r} now"]
