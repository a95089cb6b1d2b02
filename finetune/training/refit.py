"""Train once more on train and val together, for as long as the best epoch took (``train.refit``)."""

from collections import Counter

from finetune.model.batchnorm import raise_batchnorm_momentum
from finetune.training.caching.decoded import plan_decoded
from finetune.training.caching.feature_plan import plan_features
from finetune.training.curves import History
from finetune.training.run_plan import RunPlan
from finetune.training.session import Session
from finetune.training.setup.refit import refit_phases, refit_setup


def begin_refit(session: Session) -> Session:
    """Begin the refit of a session whose phases are done, and save its start as checkpoint ``last``.

    Raises:
        SaveError: the disk is full or failing.
    """
    position = session.position
    position.refit_epochs = _epochs_until_best(session)
    refit = continue_refit(session)
    position.begin_phase(refit.plan.phases[0].number)
    position.scaler = {}
    refit.save_last()
    return refit


def continue_refit(session: Session) -> Session:
    """The session of a refit at the position of ``session``, with the source weights and no optimizer."""
    setup, position = refit_setup(session.setup), session.position
    phases = refit_phases(session.setup, position.refit_epochs)
    features = plan_features(setup, phases)
    # The network has the BatchNorm momentum of the whole training, as before the refit.
    steps = sum(phase.steps for phase in session.plan.phases)
    momentum = raise_batchnorm_momentum(setup.network.module, setup.recipe.model.batchnorm_momentum, steps)
    plan = RunPlan(phases, features, plan_decoded(setup, phases, features), momentum)
    return Session(setup, session.run, plan, position, session.progress, signals=session.signals)


def _epochs_until_best(session: Session) -> list[int]:
    """The epochs that each phase had trained when the best epoch ended."""
    best = session.best.epoch
    epochs = Counter(
        entry["phase"] for entry in History.read(session.run.path).epochs if entry["epoch"] <= best
    )
    return [epochs[number] for number in sorted(epochs)]
