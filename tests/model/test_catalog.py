"""The generated table of backbones, compared with the installed torchvision."""

import math

import pytest
from torchvision import models

from finetune.errors import UserError
from finetune.recipe.catalog import backbone, backbones, suggest

INSTALLED = set(models.list_models(module=models))
BOTH = sorted(INSTALLED & backbones().keys())


def test_the_table_covers_torchvision() -> None:
    assert len(BOTH) >= 80
    assert backbones().keys() - INSTALLED == {"efficientnet_lite0"}


@pytest.mark.parametrize("name", BOTH)
def test_an_entry_agrees_with_torchvision(name: str) -> None:
    info, published = backbones()[name], models.get_model_weights(name)
    known = {weights.name: weights for weights in info.weights}
    assert info.parameters == published.DEFAULT.meta["num_params"]
    # Another torchvision may publish more or fewer sets; those in both must agree.
    for entry in published:
        if entry.name not in known:
            continue
        weights, preset = known[entry.name], entry.transforms()
        for ours, key in ((weights.top1, "acc@1"), (weights.top5, "acc@5")):
            theirs = entry.meta["_metrics"]["ImageNet-1K"][key]
            assert math.isnan(theirs) if ours is None else ours == pytest.approx(theirs / 100, abs=1e-9)
        assert weights.gflops == entry.meta["_ops"]
        assert weights.megabytes == entry.meta["_file_size"]
        assert (weights.image_size, weights.resize) == (preset.crop_size[0], preset.resize_size[0])
        assert weights.default is (entry is published.DEFAULT)
    assert published.DEFAULT.name == info.default_weights.name


def test_the_packaged_backbone_is_listed() -> None:
    info = backbone("efficientnet_lite0")
    assert (info.family, info.parameters, info.default_weights.image_size) == ("efficientnet", 4652008, 224)
    assert info.default_weights.top1 is None


def test_backbones_have_their_family() -> None:
    families = {name: info.family for name, info in backbones().items()}
    expected = {
        "resnet50": "resnet",
        "wide_resnet50_2": "wide_resnet",
        "resnext50_32x4d": "resnext",
        "vit_l_16": "vit",
        "swin_v2_b": "swin",
        "efficientnet_v2_s": "efficientnet",
        "inception_v3": "inception",
        "mnasnet0_5": "mnasnet",
    }
    assert {name: families[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("word", "meant"),
    [("resnet-18", "resnet18"), ("ResNet50", "resnet50"), ("efficientnet_lite", "efficientnet_lite0")],
)
def test_a_similar_name_is_suggested(word: str, meant: str) -> None:
    assert suggest(word, backbones()) == f" Did you mean {meant!r}?"
    with pytest.raises(UserError, match=f"unknown backbone {word!r}. Did you mean {meant!r}"):
        backbone(word)


def test_no_suggestion_for_a_distant_word() -> None:
    assert suggest("zzzzzz", backbones()) == ""
