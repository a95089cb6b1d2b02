"""Small networks of torchvision's families: the same classes with fewer and narrower blocks."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import convnext, efficientnet, vgg

from finetune.model.backbones import create


def _vgg() -> nn.Module:
    with torch.device("meta"):  # its classifier alone has 120 million parameters
        network = models.VGG(nn.Sequential())
    network.features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    wide = [nn.Linear(8 * 49, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5)]
    network.classifier = nn.Sequential(*wide, nn.Linear(16, 5))
    return network


def _efficientnet() -> nn.Module:
    stages = [efficientnet.MBConvConfig(1, 3, 1, 8, 8, 1), efficientnet.MBConvConfig(4, 3, 2, 8, 16, 2)]
    return models.EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.2, num_classes=5, last_channel=32)


SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
    "mobilenet": lambda: create("mobilenet_v3_small", 5),
    "efficientnet": _efficientnet,
    "convnext": lambda: models.ConvNeXt(
        [convnext.CNBlockConfig(8, 16, 2), convnext.CNBlockConfig(16, None, 1)],
        stochastic_depth_prob=0.2,
        num_classes=5,
    ),
    "vgg": _vgg,
    "densenet": lambda: models.DenseNet(4, (2, 2), 8, bn_size=2, drop_rate=0.2, num_classes=5),
    "vit": lambda: models.VisionTransformer(32, 8, 3, 2, 16, 32, dropout=0.2, num_classes=5),
    "swin": lambda: models.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 2], [2, 2], 2.0, dropout=0.1, attention_dropout=0.2, num_classes=5
    ),
    "efficientnet_lite0": lambda: create("efficientnet_lite0", 5),
}  # fmt: skip


def _small(family: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SMALL[family]()
        if isinstance(network, models.VisionTransformer):
            # It starts with a head of zeros, which passes no gradient to the body in the first step.
            nn.init.normal_(network.get_parameter("heads.head.weight"))
        return network


@pytest.fixture(params=sorted(SMALL))
def family(request: pytest.FixtureRequest) -> str:
    """The name of each family."""
    return str(request.param)


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    """``small("vit")`` creates a small network of a family, for images of 32 px and 5 classes."""
    return partial(_small)
