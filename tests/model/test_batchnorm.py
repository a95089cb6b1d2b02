"""BatchNorm's momentum follows the length of the run."""

import pytest
import torch
from torch import nn

from finetune.model.batchnorm import raise_batchnorm_momentum
from finetune.model.efficientnet_lite import efficientnet_lite0


def norms(*momenta: float | None) -> nn.Sequential:
    return nn.Sequential(*(nn.BatchNorm2d(3, momentum=each) for each in momenta), nn.LayerNorm(3))


def momenta(network: nn.Module) -> list[float | None]:
    return [each.momentum for each in network.modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.1), (100, 0.1), (200, 0.05), (500, 0.02), (1000, 0.01), (10**6, 0.01)]
)
def test_auto_raises_what_is_too_slow(steps: int, expected: float) -> None:
    network = norms(0.01)
    changed = raise_batchnorm_momentum(network, "auto", steps)
    assert momenta(network) == [expected]
    assert changed == (expected if expected > 0.01 else None)


def test_auto_never_lowers() -> None:
    network = norms(0.3, 0.01, None)
    assert raise_batchnorm_momentum(network, "auto", 200) == 0.05
    assert momenta(network) == [0.3, 0.05, None]


def test_keep_and_set() -> None:
    network = norms(0.3, 0.01, None)
    assert raise_batchnorm_momentum(network, "keep", 5) is None
    assert momenta(network) == [0.3, 0.01, None]
    assert raise_batchnorm_momentum(network, 0.2, 5) == 0.2
    assert momenta(network) == [0.2, 0.2, None]
    assert raise_batchnorm_momentum(network, 0.2, 5) is None


def test_statistics_keep_up_with_a_short_run() -> None:
    """After 30 batches of another distribution the running mean has arrived; with the source's it has not."""
    torch.manual_seed(0)
    means = {}
    for setting in ("keep", "auto"):
        network = efficientnet_lite0(2)
        raise_batchnorm_momentum(network, setting, 30)  # type: ignore[arg-type]
        norm = network.get_submodule("features.0.1").train()
        for _ in range(30):
            norm(torch.randn(8, 32, 4, 4) + 5.0)
        means[setting] = float(norm.running_mean.mean())
    assert means["auto"] > 4.7
    assert means["keep"] < 1.5
