"""BatchNorm's momentum for the length of a run, and recomputed statistics."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from finetune.model.batchnorm import raise_batchnorm_momentum, recalibrate
from finetune.model.freeze import Freeze
from finetune.model.layers.find import find_layers
from finetune.model.libraries.efficientnet_lite import efficientnet_lite0


def norms(*momenta: float | None) -> nn.Sequential:
    return nn.Sequential(*(nn.BatchNorm2d(3, momentum=each) for each in momenta), nn.LayerNorm(3))


def momenta(network: nn.Module) -> list[float | None]:
    return [each.momentum for each in network.modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.1), (100, 0.1), (200, 0.05), (500, 0.02), (1000, 0.01), (10**6, 0.01)]
)
def test_auto_raises_a_small_momentum(steps: int, expected: float) -> None:
    network = norms(0.01)
    changed = raise_batchnorm_momentum(network, "auto", steps)
    assert momenta(network) == [expected]
    assert changed == (expected if expected > 0.01 else None)


def test_auto_never_lowers() -> None:
    network = norms(0.3, 0.01, None)
    assert raise_batchnorm_momentum(network, "auto", 200) == 0.05
    assert momenta(network) == [0.3, 0.05, None]


def test_keep_changes_nothing_and_a_number_is_set() -> None:
    network = norms(0.3, 0.01, None)
    assert raise_batchnorm_momentum(network, "keep", 5) is None
    assert momenta(network) == [0.3, 0.01, None]
    assert raise_batchnorm_momentum(network, 0.2, 5) == 0.2
    assert momenta(network) == [0.2, 0.2, None]
    assert raise_batchnorm_momentum(network, 0.2, 5) is None


def test_statistics_keep_up_with_a_short_run() -> None:
    """30 batches of new data are enough for the running mean, but not with the source's momentum."""
    torch.manual_seed(0)
    means = {}
    for setting in ("keep", "auto"):
        network = efficientnet_lite0(2)
        raise_batchnorm_momentum(network, setting, 30)
        norm = network.get_submodule("features.0.1").train()
        for _ in range(30):
            norm(torch.randn(8, 32, 4, 4) + 5.0)
        means[setting] = float(norm.running_mean.mean())
    assert means["auto"] > 4.7
    assert means["keep"] < 1.5


def two() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()


def images(count: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 5, 5, generator=generator) * (i + 1) + i for i in range(count)]


def test_recalibrated_statistics_are_the_averages_over_batches() -> None:
    network, batches = two(), images(3, 4)
    network.get_buffer("0.running_mean").fill_(7.0)
    network.get_buffer("0.num_batches_tracked").fill_(11)
    assert recalibrate(network, ["0", "3"], batches) == 3
    means = torch.stack([b.mean((0, 2, 3)) for b in batches])
    variances = torch.stack([b.var((0, 2, 3), correction=1) for b in batches])
    torch.testing.assert_close(network.get_buffer("0.running_mean"), means.mean(0))
    torch.testing.assert_close(network[0].running_var, variances.mean(0))
    # The second sees what the first makes of each batch by itself, without dropout.
    inner = [network[2](nn.functional.batch_norm(b, None, None, training=True)) for b in batches]
    torch.testing.assert_close(
        network.get_buffer("3.running_mean"), torch.stack([i.mean((0, 2, 3)) for i in inner]).mean(0).detach()
    )
    assert all(each.training for each in network.modules())
    assert momenta(network) == [0.1, 0.1]
    assert int(network.get_buffer("0.num_batches_tracked")) == 11


def test_other_batchnorms_do_not_change() -> None:
    network = two()
    network.get_buffer("0.running_mean").fill_(7.0)
    recalibrate(network, ["3"], images(2, 4))
    assert bool((network.get_buffer("0.running_mean") == 7).all())
    assert bool(network.get_buffer("3.running_mean").any())


def test_statistics_stay_without_batches() -> None:
    network = two()
    network.get_buffer("0.running_mean").fill_(7.0)
    assert recalibrate(network, ["0"], images(2, 1)) == 0

    def broken() -> Iterator[torch.Tensor]:
        yield from images(2, 4)
        raise OSError

    with pytest.raises(OSError):
        recalibrate(network, ["0"], broken())
    assert bool((network.get_buffer("0.running_mean") == 7).all())
    assert momenta(network) == [0.1, 0.1]


def test_which_statistics_training_updates(small: Callable[..., nn.Module]) -> None:
    network = small("resnet")
    table = find_layers(network)
    norms = [path for path, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)]
    assert list(Freeze(network, table, 0).moving_batchnorms) == norms
    resting = {path for path in norms if path == "bn1" or path.startswith("layer1")}
    assert set(Freeze(network, table, 2).moving_batchnorms) == set(norms) - resting
    assert Freeze(network, table, len(table.body)).moving_batchnorms == ()
    assert Freeze(network, table, 0, "frozen").moving_batchnorms == ()


def test_frozen_statistics_stay_while_weights_train(small: Callable[..., nn.Module]) -> None:
    network = small("resnet")
    table = find_layers(network)
    freeze = Freeze(network, table, 0, "frozen")
    freeze.apply()
    freeze.train_mode()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.rand(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, _ in network.named_parameters()}
