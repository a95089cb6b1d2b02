"""One operation of a traced graph, as the rules for what its value sees take it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from finetune.explain.receptive_field.sight import Places, Sight


@dataclass(frozen=True)
class Call:
    """One operation: its arguments as values, its result, and what its inputs see.

    Attributes:
        map: what the first input with places sees.
        sights: of all inputs that depend on the image.
        given: the value of the first argument.
        result: a tensor; of several, the first.
    """

    module: nn.Module | None
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    map: Places
    sights: Sequence[Sight]
    result: Tensor

    @property
    def given(self) -> Any:
        return self.arguments[0]

    def option(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at ``position``, or of this name; of a module, its attribute."""
        if self.module is not None:
            return getattr(self.module, name, default)
        if len(self.arguments) > position:
            return self.arguments[position]
        return self.keywords.get(name, default)


def listed(axes: Any) -> list[int]:
    if isinstance(axes, int):
        return [axes]
    flat = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    return [int(each) for each in flat]
