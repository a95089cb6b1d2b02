"""Exported weights load into plain torchvision and timm networks, strictly."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from finetune.checkpoint.card import ModelCard
from finetune.deploy.safetensors_format import open_safetensors, write_safetensors
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import build
from finetune.recipe.schema import ModelSection

# Heads called fc, classifier, classifier.N, heads.head, head; a convolution; auxiliary ones; two heads.
PLAIN = [
    "resnet18", "shufflenet_v2_x0_5", "densenet121", "squeezenet1_1", "mobilenet_v3_small",
    "efficientnet_b0", "vit_b_16", "swin_t", "googlenet",
    "timm:resnet10t", "timm:test_vit", "timm:efficientnet_lite0", "timm:deit_tiny_distilled_patch16_224",
]  # fmt: skip


def exported(section: ModelSection, size: int, path: Path) -> nn.Module:
    network = build(section, 5, seed=0, image_size=size)
    preprocessing = Preprocessing(size, size, "shorter", "bilinear", (0.5,) * 3, (0.5,) * 3)
    card = ModelCard(network.architecture, tuple("abcde"), preprocessing)
    write_safetensors(network.module.eval(), card, path)
    return network.module


def published(name: str, auxiliary: bool) -> nn.Module:
    if name.startswith("timm:"):
        made: nn.Module = timm.create_model(name.removeprefix("timm:"), num_classes=5)
        return made.eval()
    options: dict[str, Any] = {"init_weights": False, "aux_logits": auxiliary} if name == "googlenet" else {}
    return torchvision.models.get_model(name, num_classes=5, **options).eval()


@pytest.mark.parametrize(("name", "dropout"), [("resnet18", 0.0), *((name, 0.4) for name in PLAIN)])
def test_the_library_network_loads_the_weights(name: str, dropout: float, tmp_path: Path) -> None:
    size = (
        224 if name in ("vit_b_16", "timm:deit_tiny_distilled_patch16_224") else 160 if "vit" in name else 64
    )
    path = tmp_path / "model.safetensors"
    section = ModelSection.model_validate({"backbone": name, "weights": "none", "head": {"dropout": dropout}})
    own = exported(section, size, path)
    tensors = safetensors.torch.load_file(path)
    theirs = published(name, auxiliary=any(entry.startswith("aux") for entry in tensors))
    theirs.load_state_dict(tensors, strict=True)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = own(images)
        torch.testing.assert_close(theirs(images), expected)
        torch.testing.assert_close(
            torch.from_numpy(open_safetensors(path).outputs(images.numpy()).logits), expected
        )


@pytest.mark.parametrize(
    "head",
    [
        {"hidden": 8, "dropout": 0.2},
        {"hidden": 8},
        {"type": "cosine", "dropout": 0.2},
        {"at": 5, "dropout": 0.2},
    ],
)
def test_heads_that_no_library_has_are_restored(head: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    section = ModelSection.model_validate({"backbone": "resnet18", "weights": "none", "head": head})
    own = exported(section, 64, path)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = own(images)
    torch.testing.assert_close(
        torch.from_numpy(open_safetensors(path).outputs(images.numpy()).logits), expected
    )


def test_a_network_starts_from_an_exported_file(tmp_path: Path) -> None:
    """``model.weights: model.safetensors``, with another dropout or none."""
    path = tmp_path / "model.safetensors"
    given: dict[str, Any] = {"backbone": "resnet18", "weights": "none", "head": {"dropout": 0.3}}
    own = exported(ModelSection.model_validate(given), 64, path)
    for dropout in (0.0, 0.5):
        section = ModelSection.model_validate(
            given | {"weights": str(path), "head": {"dropout": dropout, "reuse": {"a": 2}}}
        )
        network = build(section, 2, seed=1, image_size=64, classes=("a", "b"))
        assert set(network.reused) == {"a"}
        before = own.state_dict()["layer4.1.conv2.weight"]
        assert torch.equal(network.module.get_parameter("layer4.1.conv2.weight"), before)
