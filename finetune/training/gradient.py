"""A phase that trains by gradient steps."""

from finetune.model.freeze import Freeze
from finetune.training.caching.prefix import FrozenPrefix
from finetune.training.compute.allocator import return_large_blocks
from finetune.training.compute.compiled import Compiled
from finetune.training.session import Session
from finetune.training.setup.plan import PhasePlan
from finetune.training.setup.stepper import make_optimizer, make_stepper
from finetune.training.steps.optimizer import load_named_state


class GradientSteps:
    """The optimizer steps of one phase, on images or on the features of its frozen layers.

    ``freeze`` must be applied: the optimizer gets the parameters that still need a gradient.
    """

    def __init__(self, session: Session, plan: PhasePlan, freeze: Freeze) -> None:
        setup = session.setup
        optimizer, scaler = make_optimizer(plan, setup), setup.compute.scaler()
        load_named_state(optimizer, session.optimizer_state)
        if session.position.scaler:
            scaler.load_state_dict(session.position.scaler)
        session.optimizer, session.scaler = optimizer, scaler
        self.save_rarely = False
        self._session = session
        self._plan = plan
        self._prefix: FrozenPrefix | None = None
        self._stepper = make_stepper(setup, optimizer, plan.schedule, scaler)

    def attach(self, prefix: FrozenPrefix | None) -> None:
        train, compute = self._session.setup.recipe.train, self._session.setup.compute
        self._prefix = prefix
        if prefix is not None:
            self._stepper.suffix = prefix.suffix
            self.save_rarely = prefix.caches_train and train.checkpoint_every_steps is None
        elif compute.precision == "fp32":
            return_large_blocks()
        if compute.compile:
            self._stepper.compiled = Compiled(self._stepper.forward, train.images_per_batch)

    def train_epoch(self) -> None:
        session, plan, position = self._session, self._plan, self._session.position
        train = session.setup.recipe.train
        steps = min(plan.steps_per_epoch, plan.steps - position.phase_step + position.epoch_step)
        if position.epoch_step >= steps:
            return
        source = self._prefix or session.setup.loader
        start = position.epoch_step * train.accumulate
        batches = source.epoch(position.epoch, start=start, check=session.signals.check)
        made = self._stepper.epoch(batches, position.totals, position.phase_step, position.global_step)
        for _ in made:
            position.made_step()
            session.progress.step(position.epoch + 1, position.epoch_step, steps)
            if position.epoch_step >= steps:
                break
            every = train.checkpoint_every_steps
            if every is not None and position.global_step % every == 0:
                session.save_last()
            session.signals.check()

    def rates(self) -> dict[str, float]:
        factor = self._plan.schedule.factor(self._session.position.phase_step - 1)
        groups = self._stepper.optimizer.param_groups
        return {group["name"]: group["base_lr"] * factor for group in groups}
