"""Train and eval modes of a network's modules."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def preserve_modes(*modules: nn.Module) -> Iterator[None]:
    """Restore the train or eval mode of every submodule on exit, also after an error."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
