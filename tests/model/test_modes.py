"""Modes of modules are restored after a block, also after an error."""

import pytest
import torch
from torch import nn

from finetune.model.layers.modes import preserve_modes


def test_modes_are_restored_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    network[1].eval()
    before = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError), preserve_modes(network):
        network.eval()(torch.rand(2, 3))
    assert [module.training for module in network.modules()] == before == [True, True, False, False]
