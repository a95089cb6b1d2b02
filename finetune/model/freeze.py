"""Freezes the first k layers, and verifies that training does not change them.

A frozen layer has no gradients and runs in eval mode: BatchNorm uses its running statistics and does not
update them; dropout and stochastic depth do nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from finetune.errors import FinetuneError, FreezeBrokenError, FreezeError, require_known
from finetune.model.digests import tensor_digest
from finetune.model.layers.table import Layer, LayerTable
from finetune.recipe.catalog import suggest

_SHOWN = 5
_BATCHNORM = nn.modules.batchnorm._BatchNorm
_DROPOUTS = (nn.modules.dropout._DropoutNd, StochasticDepth)


def resolve_freeze(freeze: int | str, table: LayerTable) -> int:
    """Convert a recipe's ``freeze`` to a number of layers, from 0 to all of the body.

    Args:
        freeze: a number; the last layer to freeze; ``backbone`` (all but the head); or ``none``.

    Raises:
        FreezeError: an unknown layer, more layers than the body has, or nothing left to train.
    """
    body = table.body
    if isinstance(freeze, bool) or (isinstance(freeze, int) and freeze < 0):
        raise FreezeError(
            f"freeze: {freeze} is not a number of layers. Give 0 to {len(body)}, or a layer's name."
        )
    if isinstance(freeze, int):
        if freeze > len(body):
            raise FreezeError(
                f"freeze: {freeze} is too large: the body has {len(body)} layers before the head "
                f"({table.head.name}). Give 0 to {len(body)}, or `backbone` to train the head alone."
            )
        return freeze
    if freeze == "none":
        return 0
    if freeze == "backbone":
        return len(body)
    numbers = {layer.name: layer.number for layer in body}
    if freeze in numbers:
        return numbers[freeze]
    if freeze == table.head.name or freeze.startswith(f"{table.head.name}."):
        raise FreezeError(
            f"freeze: {freeze!r} is the head, so nothing would be left to train. `backbone` freezes all but "
            f"the head."
        )
    inside = [name for name in numbers if name.startswith(f"{freeze}.")]
    if inside:
        hint = (
            f" It contains {abbreviate_names(inside)}. Name the last layer to freeze, such as {inside[-1]!r}."
        )
    else:
        layers = abbreviate_names(list(numbers))
        hint = f"{suggest(freeze, numbers)} The layers are {layers} (`finetune layers`)."
    raise FreezeError(f"freeze: {freeze!r} is not a layer.{hint}")


def untrained_layers(table: LayerTable, k: int, not_loaded: Iterable[str] | None) -> list[str]:
    """Find layers among the first ``k`` that still have random initial values.

    Args:
        k: number of layers to check.
        not_loaded: entries of the network without loaded weights; None: all of them.
    """
    if not_loaded is None:
        return [layer.name for layer in table.body[:k]]
    entries = set(not_loaded)

    def untrained(layer: Layer) -> bool:
        return any(name in layer.parameters or name.rpartition(".")[0] in layer.modules for name in entries)

    return [layer.name for layer in table.body[:k] if untrained(layer)]


def abbreviate_names(names: list[str]) -> str:
    """Join names for a message, without the middle of a long list."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, ... {names[-1]}"


class Freeze:
    """The frozen part of a network: its first ``k`` layers.

    Args:
        k: the number of frozen layers, as :func:`resolve_freeze` returns it.
        batchnorm: ``frozen`` runs every BatchNorm in eval mode with fixed statistics, also in layers that
            train. Its weight and bias still train there.

    Raises:
        FinetuneError: a module with dropout or statistics works in a frozen layer and in one that trains, or
            ``batchnorm`` is unknown.
    """

    def __init__(
        self,
        module: nn.Module,
        table: LayerTable,
        k: int,
        batchnorm: Literal["train", "frozen"] = "train",
    ) -> None:
        require_known("batchnorm mode", batchnorm, ("train", "frozen"))
        self.module = module
        self.k = k
        frozen = {name for layer in table.body[:k] for name in layer.parameters}
        self.frozen_names = tuple(name for name, _ in module.named_parameters() if name in frozen)
        self._in_eval = _modules_within(module, table, k)
        self._batchnorms: dict[str, nn.Module] = {}
        if batchnorm == "frozen":
            self._batchnorms = {n: m for n, m in module.named_modules() if isinstance(m, _BATCHNORM)}

    @property
    def moving_batchnorms(self) -> tuple[str, ...]:
        """Paths of the BatchNorms whose statistics training updates."""
        return tuple(
            path
            for path, each in self.module.named_modules()
            if isinstance(each, _BATCHNORM)
            and each.track_running_stats
            and path not in self._in_eval
            and path not in self._batchnorms
        )

    def apply(self) -> None:
        """Disable gradients of the frozen parameters, and enable all others."""
        frozen = set(self.frozen_names)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in frozen)
            if name in frozen:
                parameter.grad = None

    def train_mode(self) -> None:
        """Put the network in train mode, and its frozen part in eval mode."""
        self.module.train()
        for each in (*self._in_eval.values(), *self._batchnorms.values()):
            each.training = False

    def frozen_digests(self) -> dict[str, str]:
        """SHA-256 of every frozen parameter and buffer by name, for :meth:`verify`. JSON-ready."""
        return {name: tensor_digest(tensor) for name, tensor in self._frozen_tensors().items()}

    def verify(self, before: Mapping[str, str]) -> None:
        """Compare the frozen tensors with an earlier :meth:`frozen_digests`.

        Raises:
            FreezeBrokenError: a frozen tensor changed, or other tensors are frozen.
        """
        now = self.frozen_digests()
        changed = [name for name in before if now.get(name) != before[name]]
        changed += [name for name in now if name not in before]
        if changed:
            raise FreezeBrokenError(
                f"{len(changed)} of {len(now)} frozen parameters and buffers changed in training: "
                f"{abbreviate_names(changed)}. The trained weights cannot be trusted."
            )

    def _frozen_tensors(self) -> dict[str, Tensor]:
        parameters = dict(self.module.named_parameters())
        found: dict[str, Tensor] = {name: parameters[name] for name in self.frozen_names}
        for path, each in {**self._in_eval, **self._batchnorms}.items():
            for name, buffer in each.named_buffers(prefix=path, recurse=False):
                # A non-persistent buffer is not part of checkpoints: it is computed for the image size.
                if name.rpartition(".")[2] not in each._non_persistent_buffers_set:
                    found[name] = buffer
        return found


def _modules_within(module: nn.Module, table: LayerTable, k: int) -> dict[str, nn.Module]:
    """The modules that work in the first k layers only."""
    within = {}
    for path, each in module.named_modules():
        # A module that is not called (a list, or a part of attention) belongs to the module that contains it.
        caller = path
        while caller not in table.spans:
            caller = caller.rpartition(".")[0]
        first, last = table.spans[caller]
        if last <= k:
            within[path] = each
        elif first <= k and caller == path and _differs_in_training(each):
            raise FinetuneError(
                f"{path} works in layers {first} to {last}, so it cannot be frozen in the first {k} only"
            )
    return within


def _differs_in_training(module: nn.Module) -> bool:
    drops = isinstance(module, _DROPOUTS) and module.p > 0
    return drops or isinstance(module, _BATCHNORM)
