"""Resume a run: where it continues from, and what its directory then records."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.checkpoint.storage import STATE
from finetune.errors import UserError, printable
from finetune.recipe.schema import Recipe
from finetune.training.run.changes import Changes, find_changes, refuse_changes, refuse_finished
from finetune.training.run.check_position import refuse_impossible_position
from finetune.training.run.extend import (
    EXTENDED,
    FORCED,
    add_extension,
    beyond_length,
    is_begun,
    is_left,
    read_extensions,
    reopen,
    schedule_restarts,
)
from finetune.training.run.files import ENVIRONMENT
from finetune.training.run.own_data import OwnData
from finetune.training.run.position import Position
from finetune.training.run.saved import SavedRun
from finetune.training.setup.plan import PhasePlan, plan_phases
from finetune.training.setup.prepare import Setup
from finetune.training.setup.refit import refit_phases


@dataclass(frozen=True)
class Continuation:
    """Whether a run continues from its last checkpoint, and whether it may be continued later.

    Attributes:
        resume: continue from the last checkpoint, if there is one.
        force: continue although recipe, data or libraries have changed, unless the checkpoint cannot fit.
        extend: continue a finished run whose recipe now has more epochs or phases.
        leave_open: more phases may follow: test is not evaluated, and the run is not marked as finished.
    """

    resume: bool = False
    force: bool = False
    extend: bool = False
    leave_open: bool = False


@dataclass(frozen=True)
class StartingPoint:
    """The point from which a run trains.

    Attributes:
        changed: what has changed since the run began; it continues all the same, by ``--force``.
        extensions: the points at which the run was made longer (:mod:`finetune.training.run.extend`).
    """

    position: Position = field(default_factory=Position)
    changed: list[str] = field(default_factory=list)
    extensions: list[dict[str, Any]] = field(default_factory=list)


def planned_phases(setup: Setup, extensions: Sequence[Mapping[str, Any]] = ()) -> list[PhasePlan]:
    """Plan the phases of the recipe, for a run with these extensions."""
    return plan_phases(setup.recipe.train, setup.loader.batches_per_epoch, schedule_restarts(extensions))


def find_starting_point(
    saved: SavedRun,
    setup: Setup,
    own: OwnData,
    environment: Mapping[str, Any],
    continuation: Continuation,
) -> StartingPoint:
    """Find the point from which a saved run continues.

    Args:
        own: the run's images as they are now.
        environment: the present environment.

    Raises:
        RunDirError: something has changed that must not.
        UserError: the run cannot be extended.
        CheckpointError: the saved position is not one of this run.
    """
    run, force, extend = saved.run, continuation.force, continuation.extend
    position, begun = saved.read_position(), saved.recipe_on(setup.recipe, own)
    before = plan_phases(begun.train, setup.loader.batches_per_epoch)
    where, patience = str(saved.checkpoint / STATE), begun.train.early_stopping
    changes = find_changes(begun, setup, saved.environment, environment, own)
    extensions = read_extensions(saved.environment, len(begun.train.phases), str(run.path / ENVIRONMENT))
    if position.refit_epochs:
        return _find_in_refit(saved, setup, changes, position, extensions, continuation)
    refuse_impossible_position(position, before, patience, where, exact=False)
    extension_begun = is_begun(position, extensions, planned_phases(setup, extensions))
    left_open = extend and not is_left(position, before) and is_left(position, planned_phases(setup))
    if not (position.finished or left_open) or (extension_begun and not changes.recipe):
        changed = changes.all
        refuse_changes(run, changed, force=force, extend=extend)
    elif not extend:
        if changes.recipe or changes.data:
            longer = not beyond_length(begun, setup.recipe, position.phase) and not changes.data
            refuse_finished(run, setup, changes, longer=longer, extend=False)
        # Nothing is left to do, so a change of the machine does not matter.
        return StartingPoint(position, [], extensions)
    else:
        changed = _refuse_beyond_length(saved, setup, changes, begun, position, force=force)
        steps = before[position.phase].steps
        extensions = add_extension(position, extensions, planned_phases(setup), steps, changes.recipe)
    if position.finished:
        reopen(position, extensions[-1])
    if changed:
        position.frozen = None  # the phase may freeze other layers now
    exact = not (changed or saved.environment.get(FORCED))
    refuse_impossible_position(position, planned_phases(setup, extensions), patience, where, exact=exact)
    return StartingPoint(position, changed, extensions)


def _find_in_refit(
    saved: SavedRun,
    setup: Setup,
    changes: Changes,
    position: Position,
    extensions: list[dict[str, Any]],
    continuation: Continuation,
) -> StartingPoint:
    """As :func:`find_starting_point`, for a run whose refit (``train.refit``) has begun."""
    run, changed = saved.run, changes.all
    if continuation.extend:
        raise UserError(
            f"{printable(run.path)}: has trained on train and val together (train.refit), and cannot be made "
            "longer. Start another run, with more epochs or with model.weights set to this one."
        )
    if position.finished and (changes.recipe or changes.data):
        refuse_finished(run, setup, changes, longer=False, extend=False)
    if position.finished:
        return StartingPoint(position, [], extensions)
    refuse_changes(run, changed, force=continuation.force)
    if changed:
        position.frozen = None  # the phase may freeze other layers now
    exact = not (changed or saved.environment.get(FORCED))
    plans = [*planned_phases(setup, extensions), *refit_phases(setup, position.refit_epochs)]
    patience = setup.recipe.train.early_stopping
    refuse_impossible_position(position, plans, patience, str(saved.checkpoint / STATE), exact=exact)
    return StartingPoint(position, changed, extensions)


def environment_to_record(
    saved: SavedRun, start: StartingPoint, environment: Mapping[str, Any], *, extend: bool
) -> dict[str, Any] | None:
    """The environment that a resumed run records from now on; None: it stays as it is."""
    known = saved.environment
    if start.changed or start.extensions != known.get(EXTENDED, []):
        history = {name: known[name] for name in (FORCED, EXTENDED) if name in known}
        if start.changed:
            now = {"step": start.position.global_step, "changed": start.changed}
            history[FORCED] = [*known.get(FORCED, []), now]
        if start.extensions:
            history[EXTENDED] = start.extensions
        return {**environment, **history}
    source = environment["data_source"]
    if extend or source != known.get("data_source"):
        return {**known, "data_source": source}
    return None


def _refuse_beyond_length(
    saved: SavedRun, setup: Setup, changes: Changes, begun: Recipe, position: Position, *, force: bool
) -> list[str]:
    """Refuse to extend a run if more than its length has changed; with ``force``, return those changes."""
    recipe = [f"recipe {line}" for line in beyond_length(begun, setup.recipe, position.phase)]
    changes = dataclasses.replace(changes, recipe=recipe)
    if changes.all and not force:
        refuse_finished(saved.run, setup, changes, longer=False, extend=True)
    refuse_changes(saved.run, changes.all, force=force)
    return changes.all
