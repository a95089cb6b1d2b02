"""A finished run that is trained longer: more epochs in its last phase, or phases after it.

The run goes on from its last weights and its optimizer's state, keeps its best checkpoint and its metrics,
and is judged on test again at its new end. Where the schedule depends on a phase's length (cosine, one_cycle)
it begins again for the added epochs; by the others (constant, step) the phase goes on as if it had been that
long from the start. The run's ``environment.json`` keeps where it was extended, and its recipe becomes the
longer one: a run that is stopped then is resumed as any other.

A run whose phases are all done, and that was left open for more (``fit`` with ``leave_open``), is extended in
the same way. Where no phase made a gradient step so far, the recipe may also change in what only steps take
account of: the bits are then those of a run that had the longer recipe from the start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.errors import CheckpointError, UserError, printable
from finetune.recipe.schema import Recipe
from finetune.training.run.changes import differences
from finetune.training.run.position import Position
from finetune.training.setup.plan import SOLVER, PhasePlan

# Its place in the environment, and that of changes that were gone on in spite of.
EXTENDED, FORCED = "extended", "forced"
COUNTS = ("epoch", "step", "phase", "phase_step")
# What a solved head takes no account of, by section. Of augmentation, only while looks are endless: it is
# solved on images as they are then.
OF_STEPS = {
    "train": ("early_stopping", "label_smoothing", "optimizer", "select", "weight_decay"),
    "model": ("batchnorm",),
}


def read_extensions(known: Mapping[str, Any], phases: int, where: str) -> list[dict[str, Any]]:
    """The extensions that a run's environment tells of, first to last; its recipe has so many ``phases``.

    Raises:
        CheckpointError: they are something else.
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
            f"{printable(where)}: is not the description of a run's environment ({EXTENDED})."
        )
    return found


def schedule_restarts(extensions: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """By phase, the step in it at which its schedule began anew; the last one, where there are several."""
    return {each["phase"]: each["phase_step"] for each in extensions if each["begins_again"]}


def is_begun(position: Position, extensions: Sequence[Mapping[str, Any]], plans: Sequence[PhasePlan]) -> bool:
    """Whether a run whose saved position says finished has begun to be extended, and saved nothing since."""
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
    """The extensions of a run whose phases are done with one more, from ``position`` on.

    Args:
        plans: the phases of the recipe as it is now, of the recipe's schedules.
        steps_before: the length of the phase that the run ended in, in steps, as it was.
        changed: what the recipe has that it had not, in words.

    Raises:
        UserError: there is nothing left to train, or the run ended within an epoch.
    """
    if not is_left(position, plans):
        number, epochs = position.phase, position.phase_epoch
        raise UserError(
            "--extend: the recipe has no more epochs than this run has trained. Give its last phase more, as "
            f"by --set train.phases.{number}.epochs={2 * epochs} (it has trained {epochs}), or add a phase: "
            f"--set 'train.phases.{number + 1}={{epochs: {epochs}}}'"
        )
    plan = plans[position.phase]
    # A phase that early stopping ended stays ended where nothing but phases after it is new.
    is_longer, is_last = plan.steps != steps_before, len(plans) == position.phase + 1
    goes_on = plan.steps > position.phase_step and (is_longer or is_last)
    if goes_on and position.phase_step != position.phase_epoch * plan.steps_per_epoch:
        raise UserError(
            f"--extend: this run ended within an epoch (train.max_steps), {position.phase_step} steps into "
            f"phase {position.phase + 1}, and cannot go on from there in whole epochs. Train on from its "
            f"weights in another run: --run-dir with --set model.weights=RUN"
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
    # One that was begun and has saved nothing gives way to this one.
    return [*(dict(each) for each in extensions if each["step"] < position.global_step), entry]


def reopen(position: Position, extension: Mapping[str, Any]) -> None:
    """Have a finished run go on with ``extension``; early stopping counts anew in a phase that goes on."""
    position.finished = False
    if extension["goes_on"]:
        position.epochs_without_better = 0


def describe_extension(entry: Mapping[str, Any], plans: Sequence[PhasePlan]) -> str:
    """Which epochs are added, and at which rates."""
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
                else f"by its schedule ({kind}), as before"
            )
        elif kind == "cosine":
            rate = f"lr begins again at {plan.lr:g} and falls to 0 along a cosine"
        else:
            rate = f"lr goes through one more cycle, up to {plan.lr:g} and down to 0"
        parts.append(f"phase {plan.number + 1} goes on with {epochs}: {rate}")
    added = [each for each in plans if each.number > plan.number]
    if added:
        numbers = " and ".join(str(each.number + 1) for each in added)
        parts.append(f"phase{'s' if len(added) > 1 else ''} {numbers} of the recipe")
    return "; then ".join(parts)


def beyond_length(before: Recipe, now: Recipe, phase: int) -> list[str]:
    """What ``now`` has changed beside the length: what makes it another training, and not a longer one.

    Args:
        phase: the one that the run ended in.
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
    """Whether ``plans`` have more steps or phases than were done at ``position``."""
    return len(plans) > position.phase + 1 or plans[position.phase].steps > position.phase_step
