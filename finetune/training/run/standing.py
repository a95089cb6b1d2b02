"""Where a run goes on from: at its start, where it was stopped, or at its end to be trained longer."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.checkpoint.storage import STATE
from finetune.training.run.check_position import refuse_misfit
from finetune.training.run.directory import RunDir
from finetune.training.run.extend import (
    begun_again,
    beyond_length,
    extended,
    extensions_of,
    is_begun,
    is_left,
    take_up,
)
from finetune.training.run.files import ENVIRONMENT
from finetune.training.run.own_data import OwnData
from finetune.training.run.position import Position
from finetune.training.run.resume import (
    begun_with,
    find_changes,
    read_position,
    refuse_changes,
    refuse_finished,
)
from finetune.training.setup.plan import PhasePlan, plan_phases
from finetune.training.setup.prepare import Setup


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        changed: what has changed since it began, which it goes on in spite of, by force.
        extensions: where it was made longer, :mod:`finetune.training.run.extend`.
    """

    position: Position = field(default_factory=Position)
    changed: list[str] = field(default_factory=list)
    extensions: list[dict[str, Any]] = field(default_factory=list)


def planned(setup: Setup, extensions: Sequence[Mapping[str, Any]] = ()) -> list[PhasePlan]:
    """The phases of the recipe, of a run that was extended so."""
    return plan_phases(setup.recipe.train, setup.loader.batches_per_epoch, begun_again(extensions))


def stand(
    run: RunDir,
    setup: Setup,
    saved: Path,
    known: Mapping[str, Any],
    environment: Mapping[str, Any],
    own: OwnData,
    *,
    force: bool,
    extend: bool,
) -> Standing:
    """Where a run that has begun goes on from checkpoint ``saved``.

    Args:
        known: the environment that it began in.
        environment: the present one.
        own: the run's images as they are now.

    Raises:
        RunDirError: something has changed that may not.
        UserError: it cannot be extended.
        CheckpointError: what was saved cannot be of this run.
    """
    position, begun = read_position(saved), begun_with(run, setup.recipe, own)
    before = plan_phases(begun.train, setup.loader.batches_per_epoch)
    where, patience = str(saved / STATE), begun.train.early_stopping
    refuse_misfit(position, before, patience, where, exact=False)
    changes = find_changes(begun, setup, known, environment, own)
    extensions = extensions_of(known, len(begun.train.phases), str(run.path / ENVIRONMENT))
    extension_begun = is_begun(position, extensions, planned(setup, extensions))
    left_open = extend and not is_left(position, before) and is_left(position, planned(setup))
    if not (position.finished or left_open) or (extension_begun and not changes.recipe):
        refuse_changes(run, changes.all, force=force, extend=extend)
        standing = Standing(position, changes.all, extensions)
    elif not extend:
        another = beyond_length(begun, setup.recipe, position.phase)
        if changes.recipe or changes.data:
            longer = not another and not changes.data
            refuse_finished(run, setup, changes, longer=longer, extend=False)
        # On whatever machine: there is nothing to do.
        return Standing(position, [], extensions)
    else:
        another = [f"recipe {line}" for line in beyond_length(begun, setup.recipe, position.phase)]
        if another + changes.data + changes.machine and not force:
            told = dataclasses.replace(changes, recipe=another)
            refuse_finished(run, setup, told, longer=False, extend=True)
        changed = another + changes.data + changes.machine
        refuse_changes(run, changed, force=force)
        steps = before[position.phase].steps
        extensions = extended(position, extensions, planned(setup), steps, changes.recipe)
        standing = Standing(position, changed, extensions)
    if position.finished:
        take_up(position, extensions[-1])
    exact = not (standing.changed or known.get("forced"))
    refuse_misfit(position, planned(setup, extensions), patience, where, exact=exact)
    return standing
