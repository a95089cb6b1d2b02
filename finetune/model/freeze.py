"""Freezing: the first k layers keep their parameters, buffers and eval mode, and this is verified.

A frozen layer has no gradient and runs wholly in eval mode: BatchNorm normalises by its running statistics
and leaves them alone, dropout and stochastic depth do nothing.
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
    """How many layers a recipe's ``freeze`` holds: 0 up to the number of layers in the body.

    Args:
        freeze: k, a layer's name (up to and including it), ``backbone`` (all but the head) or ``none``.

    Raises:
        FreezeError: it names no layer, goes beyond the body, or would leave nothing to train.
    """
    body = table.body
    if isinstance(freeze, bool) or (isinstance(freeze, int) and freeze < 0):
        raise FreezeError(
            f"freeze: {freeze} is no number of layers. Give 0 to {len(body)}, or a layer's name."
        )
    if isinstance(freeze, int):
        if freeze > len(body):
            raise FreezeError(
                f"freeze: {freeze} is beyond the body, which has {len(body)} layers before the head "
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
            f"freeze: {freeze!r} is the head; freezing up to it leaves nothing to train. `backbone` freezes "
            f"all but the head."
        )
    inside = [name for name in numbers if name.startswith(f"{freeze}.")]
    if inside:
        hint = f" It holds {abbreviate_names(inside)}. Name the last layer to freeze, such as {inside[-1]!r}."
    else:
        layers = abbreviate_names(list(numbers))
        hint = f"{suggest(freeze, numbers)} The layers are {layers} (`finetune layers`)."
    raise FreezeError(f"freeze: {freeze!r} is no layer.{hint}")


def fresh_layers(table: LayerTable, k: int, kept: Iterable[str] | None) -> list[str]:
    """Those of the first ``k`` layers that hold initial values, to which freezing would hold on.

    Args:
        kept: the network's entries that no weights were loaded into; None: all.
    """
    entries = None if kept is None else set(kept)

    def fresh(layer: Layer) -> bool:
        if entries is None:
            return True
        return any(name in layer.parameters or name.rpartition(".")[0] in layer.modules for name in entries)

    return [layer.name for layer in table.body[:k] if fresh(layer)]


def abbreviate_names(names: list[str]) -> str:
    """Names for a message: a few of them where there are many."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, ... {names[-1]}"


class Freeze:
    """The first ``k`` layers of a network, held.

    Args:
        module: the network.
        table: its layers.
        k: how many of them are frozen, as :func:`resolve_freeze` gives it.
        batchnorm: ``frozen`` keeps the statistics of every BatchNorm, frozen layer or not, and runs it in
            eval mode; its weight and bias still train.

    Raises:
        FinetuneError: a module with dropout or statistics works in a frozen layer and in one that is not, or
            an unknown ``batchnorm``.
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
        self._in_eval = _resting_modules(module, table, k)
        self._batchnorms: dict[str, nn.Module] = {}
        if batchnorm == "frozen":
            self._batchnorms = {n: m for n, m in module.named_modules() if isinstance(m, _BATCHNORM)}

    @property
    def moving_batchnorms(self) -> tuple[str, ...]:
        """Paths of the BatchNorms whose statistics training moves."""
        return tuple(
            path
            for path, each in self.module.named_modules()
            if isinstance(each, _BATCHNORM)
            and each.track_running_stats
            and path not in self._in_eval
            and path not in self._batchnorms
        )

    def apply(self) -> None:
        """Let the frozen parameters go without gradient, and all others with one."""
        frozen = set(self.frozen_names)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name not in frozen)
            if name in frozen:
                parameter.grad = None

    def train_mode(self) -> None:
        """Put the network in train mode, and what is frozen in eval mode."""
        self.module.train()
        for each in (*self._in_eval.values(), *self._batchnorms.values()):
            each.training = False

    def frozen_digests(self) -> dict[str, str]:
        """SHA-256 of every frozen parameter and buffer, by name. JSON-ready; :meth:`verify` compares it."""
        return {name: tensor_digest(tensor) for name, tensor in self._held().items()}

    def verify(self, before: Mapping[str, str]) -> None:
        """Compare with an earlier :meth:`frozen_digests`.

        Raises:
            FreezeBrokenError: a frozen tensor is not what it was, or another set of tensors is frozen.
        """
        now = self.frozen_digests()
        changed = [name for name in before if now.get(name) != before[name]]
        changed += [name for name in now if name not in before]
        if changed:
            raise FreezeBrokenError(
                f"{len(changed)} of {len(now)} frozen parameters and buffers changed in training: "
                f"{abbreviate_names(changed)}. The trained weights cannot be trusted."
            )

    def _held(self) -> dict[str, Tensor]:
        parameters = dict(self.module.named_parameters())
        held: dict[str, Tensor] = {name: parameters[name] for name in self.frozen_names}
        for path, each in {**self._in_eval, **self._batchnorms}.items():
            for name, buffer in each.named_buffers(prefix=path, recurse=False):
                # One that no checkpoint keeps is worked out as it is needed, for images of this size.
                if name.rpartition(".")[2] not in each._non_persistent_buffers_set:
                    held[name] = buffer
        return held


def _resting_modules(module: nn.Module, table: LayerTable, k: int) -> dict[str, nn.Module]:
    """The modules all of whose work is in the first k layers."""
    resting = {}
    for path, each in module.named_modules():
        # A module that is not called itself (a list, or a part of attention) goes with the one that holds it.
        caller = path
        while caller not in table.spans:
            caller = caller.rpartition(".")[0]
        first, last = table.spans[caller]
        if last <= k:
            resting[path] = each
        elif first <= k and caller == path and _differs_in_training(each):
            raise FinetuneError(
                f"{path} works in layers {first} to {last}, so it cannot be frozen in the first {k} alone"
            )
    return resting


def _differs_in_training(module: nn.Module) -> bool:
    drops = isinstance(module, _DROPOUTS) and module.p > 0
    return drops or isinstance(module, _BATCHNORM)
