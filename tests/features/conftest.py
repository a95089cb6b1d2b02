"""Small networks of torchvision's families, in the state they have after some training."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import efficientnet

SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "efficientnet": lambda: models.EfficientNet(
        [efficientnet.MBConvConfig(1, 3, 1, 8, 8, 1), efficientnet.MBConvConfig(4, 3, 2, 8, 16, 2)],
        dropout=0.2, stochastic_depth_prob=0.2, num_classes=5, last_channel=32,
    ),
    "densenet": lambda: models.DenseNet(4, (2, 2), 8, bn_size=2, drop_rate=0.2, num_classes=5),
    "vit": lambda: models.VisionTransformer(32, 8, 3, 2, 16, 32, dropout=0.2, num_classes=5),
}  # fmt: skip


def network(family: str) -> nn.Module:
    """One of them, with a head and BatchNorm statistics that are not the defaults."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SMALL[family]()
        for each in module.modules():
            if isinstance(each, nn.BatchNorm2d):
                nn.init.normal_(each.get_buffer("running_mean"), std=0.2)
                nn.init.uniform_(each.get_buffer("running_var"), 0.5, 2.0)
                nn.init.uniform_(each.weight, 0.5, 1.5)
                nn.init.normal_(each.bias, std=0.2)
        if isinstance(module, models.VisionTransformer):
            nn.init.normal_(module.get_parameter("heads.head.weight"))
    return module


@pytest.fixture(params=sorted(SMALL))
def small(request: pytest.FixtureRequest) -> nn.Module:
    """Each family in turn."""
    return network(request.param)


@pytest.fixture
def images() -> torch.Tensor:
    """Five images of 32 px."""
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
