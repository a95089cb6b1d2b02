"""What a training did to the layers: which were frozen, whether the freeze held, how far the others moved."""

from dataclasses import dataclass

from finetune.errors import FinetuneError, FreezeBrokenError
from finetune.model.freeze import Freeze, resolve_freeze
from finetune.training.compute.precision import place
from finetune.training.movement import Movement, movement_between, start_network
from finetune.training.trained import Trained


@dataclass(frozen=True)
class Layers:
    """The layers of a run.

    Attributes:
        movement: of each layer, from the first to the head.
        frozen: per phase of the recipe, how many of the first layers it freezes.
        always_frozen: how many layers all phases freeze.
        tensors: how many of their tensors (weights and statistics) were compared with the start.
        broken: how the frozen layers differ from the start; None if they have the same bits.
        failure: why the start is not known; else None. Then there is no movement.
    """

    movement: tuple[Movement, ...]
    frozen: tuple[int, ...]
    always_frozen: int
    tensors: int
    broken: str | None
    failure: str | None = None

    @property
    def body(self) -> int:
        """The number of layers before the head."""
        return sum(not each.is_head for each in self.movement)


def compare_layers(trained: Trained) -> Layers:
    """Compare the layers of a run with their start, which is rebuilt from the source weights."""
    try:
        start = start_network(trained)
        place(start.module, trained.device)
        found = movement_between(start, trained.module)
        frozen = tuple(resolve_freeze(phase.freeze, start.table) for phase in trained.recipe.train.phases)
        always = min(frozen, default=0)
        before = Freeze(start.module, start.table, always).frozen_digests()
    except FinetuneError as error:
        return Layers((), (), 0, 0, None, str(error))
    try:
        Freeze(trained.module, start.table, always).verify(before)
    except FreezeBrokenError as error:
        return Layers(tuple(found), frozen, always, len(before), str(error))
    return Layers(tuple(found), frozen, always, len(before), None)
