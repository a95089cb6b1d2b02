"""Extend a finished run: more epochs in its last phase, or more phases.

The run continues from its last weights and optimizer state, keeps its best checkpoint and metrics, and is
evaluated on test again at its new end. A schedule that depends on the length of the phase (cosine, one_cycle)
restarts for the added epochs. With the others (constant, step) the phase continues as if it had been that
long from the start. ``environment.json`` records each extension, and the longer recipe becomes the recipe of
the run, so that an extended run resumes like any other.

A run that was left open (``Continuation.leave_open``) is extended in the same way. If no phase has made a
gradient step yet, keys that affect only gradient steps may change too: the result is bit-identical to that of
a run that had the longer recipe from the start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.errors import CheckpointError, UserError, printable
from finetune.recipe.schema import Recipe
from finetune.training.run.changes import differences
from finetune.training.run.position import Position
from finetune.training.setup.plan import SOLVER, PhasePlan

# Keys of environment.json: extensions, and changes that --force accepted.
EXTENDED, FORCED = "extended", "forced"
COUNTS = ("epoch", "step", "phase", "phase_step")
# The keys that do not affect a solved head, by section. Augmentation does not affect it either, as long as
# `augment.views` is not set: the head is then solved on images as in evaluation.
OF_STEPS = {
    "train": ("early_stopping", "label_smoothing", "optimizer", "refit", "select", "weight_decay"),
    "model": ("batchnorm",),
}


def read_extensions(known: Mapping[str, Any], phases: int, where: str) -> list[dict[str, Any]]:
    """The extensions in ``environment.json``, oldest first; ``phases`` is the number of phases of the recipe.

    Raises:
        CheckpointError: the entry is damaged.
    """
    found = known.get(EXTENDED, [])
    if not isinstance(found, list) or not all(
        isinstance(each, dict)
        and all(type(each.get(name)) is int and each[name] >= 0 for name in COUNTS)
        and all(type(each.get(name)) is bool for name in ("goes_on", "begins_again"))
        and each["phase"] < phases
        for each in found
    ):
        raise CheckpointError(
            f"{printable(where)}: its entry {EXTENDED!r} is damaged. Start over with --overwrite."
        )
    return found


def schedule_restarts(extensions: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """By phase, the step of the phase at which its schedule last restarted."""
    return {each["phase"]: each["phase_step"] for each in extensions if each["begins_again"]}


def is_begun(position: Position, extensions: Sequence[Mapping[str, Any]], plans: Sequence[PhasePlan]) -> bool:
    """Whether an extension was recorded, but nothing was saved since: the position is still finished."""
    return (
        position.finished
        and bool(extensions)
        and extensions[-1]["step"] == position.global_step
        and is_left(position, plans)
    )


def add_extension(
    position: Position,
    extensions: Sequence[Mapping[str, Any]],
    plans: Sequence[PhasePlan],
    steps_before: int,
    changed: Sequence[str],
) -> list[dict[str, Any]]:
    """Add an extension that starts at ``position``, where all phases are done.

    Args:
        plans: the phases of the present recipe.
        steps_before: the former length, in steps, of the phase that the run ended in.
        changed: the differences between the recipes, for the record.

    Raises:
        UserError: nothing is left to train, or the run ended within an epoch.
    """
    if not is_left(position, plans):
        number, epochs = position.phase, position.phase_epoch
        raise UserError(
            "--extend: the recipe has no more epochs than this run has trained. Add epochs to its last "
            f"phase, with --set train.phases.{number}.epochs={2 * epochs} (it has trained {epochs}), or add "
            f"a phase: --set 'train.phases.{number + 1}={{epochs: {epochs}}}'"
        )
    plan = plans[position.phase]
    # A phase that early stopping ended does not continue if only later phases were added.
    is_longer, is_last = plan.steps != steps_before, len(plans) == position.phase + 1
    goes_on = plan.steps > position.phase_step and (is_longer or is_last)
    if goes_on and position.phase_step != position.phase_epoch * plan.steps_per_epoch:
        raise UserError(
            f"--extend: this run ended within an epoch (train.max_steps), {position.phase_step} steps into "
            f"phase {position.phase + 1}, and cannot continue in whole epochs. Start another run from its "
            f"weights: --run-dir with --set model.weights=RUN"
        )
    entry = {
        "epoch": position.epoch,
        "step": position.global_step,
        "phase": position.phase,
        "phase_step": position.phase_step,
        "goes_on": goes_on,
        "begins_again": goes_on and is_longer and plan.schedule.depends_on_length,
        "changed": list(changed),
    }
    # An earlier extension that has saved nothing is replaced.
    return [*(dict(each) for each in extensions if each["step"] < position.global_step), entry]


def reopen(position: Position, extension: Mapping[str, Any]) -> None:
    """Reopen a finished run for ``extension``; early stopping starts to count again."""
    position.finished = False
    if extension["goes_on"]:
        position.epochs_without_better = 0


def describe_extension(entry: Mapping[str, Any], plans: Sequence[PhasePlan]) -> str:
    """The added epochs and their learning rates, for the user."""
    plan = plans[entry["phase"]]
    parts = []
    first, last = entry["phase_step"] // plan.steps_per_epoch + 1, plan.epochs
    if entry["goes_on"]:
        epochs = f"epoch {last}" if first == last else f"epochs {first} to {last}"
        kind = plan.schedule.kind
        if not entry["begins_again"]:
            rate = (
                f"at lr {plan.lr:g}, as before"
                if kind == "constant"
                else f"with its schedule ({kind}), as before"
            )
        elif kind == "cosine":
            rate = f"lr restarts at {plan.lr:g} and falls to 0 along a cosine"
        else:
            rate = f"lr runs through another cycle, up to {plan.lr:g} and down to 0"
        parts.append(f"phase {plan.number + 1} continues with {epochs}: {rate}")
    added = [each for each in plans if each.number > plan.number]
    if added:
        numbers = " and ".join(str(each.number + 1) for each in added)
        parts.append(f"phase{'s' if len(added) > 1 else ''} {numbers} of the recipe")
    return "; then ".join(parts)


def beyond_length(before: Recipe, now: Recipe, phase: int) -> list[str]:
    """The differences between two recipes other than the length of the training.

    Args:
        phase: the phase that the run ended in.
    """
    phases = list(now.train.phases[: len(before.train.phases)])
    if len(phases) == len(before.train.phases):
        phases[phase] = phases[phase].model_copy(update={"epochs": before.train.phases[phase].epochs})
    same: dict[str, Any] = {"phases": tuple(phases), "max_steps": before.train.max_steps}
    model: dict[str, Any] = {}
    if all(each.optimizer == SOLVER for each in before.train.phases[: phase + 1]):
        same |= {name: getattr(before.train, name) for name in OF_STEPS["train"]}
        model = {name: getattr(before.model, name) for name in OF_STEPS["model"]}
        if before.train.augment.views is None and now.train.augment.views is None:
            same["augment"] = before.train.augment
    train, network = now.train.model_copy(update=same), now.model.model_copy(update=model)
    return differences(before, now.model_copy(update={"train": train, "model": network}))


def is_left(position: Position, plans: Sequence[PhasePlan]) -> bool:
    """Whether ``plans`` have steps or phases that are not done at ``position``."""
    return len(plans) > position.phase + 1 or plans[position.phase].steps > position.phase_step
