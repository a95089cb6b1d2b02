"""Check that a saved position is possible in a run of the recipe; a resume refuses any other.

An impossible position was altered or belongs to another recipe. Earlier versions also saved one: a signal
during the evaluation of a solved head left that epoch open, and the next phase began inside its first epoch.
"""

from collections.abc import Iterator, Sequence

from finetune.errors import CheckpointError, printable
from finetune.training.run.position import Position
from finetune.training.setup.plan import SOLVER, PhasePlan


def refuse_impossible_position(
    position: Position, plans: Sequence[PhasePlan], patience: int | None, where: str, *, exact: bool = True
) -> None:
    """Refuse a position that a run with these phases cannot reach.

    Args:
        patience: of early stopping, which can end a phase early; None: no early stopping.
        where: the file that the position was read from.
        exact: whether the counts must match; False if ``--force`` continued the run with another recipe.

    Raises:
        CheckpointError: the position is impossible.
    """
    fault = next(_faults(position, plans, patience, exact), None)
    if fault is not None:
        raise CheckpointError(
            f"{printable(where)}: is no state of a run of this recipe ({fault}). It was altered, or saved by "
            "an earlier version that lost an epoch on a signal. Start over with --overwrite."
        )


def _faults(
    position: Position, plans: Sequence[PhasePlan], patience: int | None, exact: bool
) -> Iterator[str]:
    at = position
    if at.phase >= len(plans):
        yield f"phase {at.phase + 1} of {len(plans)}"
        return
    if at.epoch_step > at.phase_step or at.phase_step > at.global_step or at.phase_epoch > at.epoch:
        yield "a part is more than the whole"
    if at.best is None:
        if at.epoch or at.finished:
            yield f"no best epoch after {at.epoch}"
    elif not 1 <= at.best.epoch <= at.epoch:
        yield f"the best epoch is {at.best.epoch} of {at.epoch}"
    if at.finished and (at.epoch_step or at.phase != len(plans) - 1) and exact:
        yield "finished before its end"
    if not at.epoch <= at.metrics_lines <= 2 * at.epoch + 1:
        yield f"{at.metrics_lines} lines of metrics after {at.epoch} epochs"
    if exact:
        yield from _miscounts(at, plans, patience)


def _miscounts(at: Position, plans: Sequence[PhasePlan], patience: int | None) -> Iterator[str]:
    plan = plans[at.phase]
    closed = min(at.phase_epoch * plan.steps_per_epoch, plan.steps)
    left = min(plan.steps_per_epoch, plan.steps - closed)
    place = f"phase {at.phase + 1}"
    if at.phase_epoch > plan.epochs:
        yield f"epoch {at.phase_epoch} of {plan.epochs} in {place}"
    elif at.epoch_step > left:
        yield f"step {at.epoch_step} of {left} in an epoch of {place}"
    elif at.phase_step != closed + at.epoch_step:
        yield f"step {at.phase_step} of {place} where it should be {closed + at.epoch_step}"
    if at.totals.images + at.totals.skipped and not at.epoch_step:
        yield "images of an epoch that has not begun"
    for what, made, most, least in (
        ("epochs", at.epoch - at.phase_epoch, *_before(plans[: at.phase], patience, steps=False)),
        ("steps", at.global_step - at.phase_step, *_before(plans[: at.phase], patience, steps=True)),
    ):
        if not least <= made <= most:
            yield f"{made} {what} before {place} where it should be {most}"
    since_best = 0 if at.best is None else at.epoch - at.best.epoch
    if at.epochs_without_better > min(at.phase_epoch, since_best):
        yield f"{at.epochs_without_better} epochs without a better one"


def _before(plans: Sequence[PhasePlan], patience: int | None, *, steps: bool) -> tuple[int, int]:
    """The most and the fewest epochs, or steps, that the phases can take."""
    most = sum(plan.steps if steps else plan.epochs for plan in plans)
    if patience is None:
        return most, most
    return most, sum(_least(plan, patience, steps) for plan in plans)


def _least(plan: PhasePlan, patience: int, steps: bool) -> int:
    epochs = plan.epochs if plan.optimizer == SOLVER else min(plan.epochs, patience)
    return min(plan.steps, epochs * plan.steps_per_epoch) if steps else epochs
