"""Networks of timm: head, layers, freezing and weights, with and without a traced graph."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from finetune.errors import MissingExtraError, UserError, WeightsError
from finetune.model.build import Network, build, describe, rebuild
from finetune.model.freeze import Freeze
from finetune.model.param_groups import GroupRules, param_groups
from finetune.recipe.schema import ModelSection

timm = pytest.importorskip("timm")

# crossvit cannot be traced; deit has two heads.
SMALL = {"mobilenetv1_100": 64, "crossvit_tiny_240": 240, "deit_tiny_distilled_patch16_224": 224}


def made(name: str, **section: Any) -> Network:
    size = section.pop("image_size", SMALL.get(name))
    given = {"backbone": f"timm:{name}", "weights": "none"} | section
    return build(ModelSection(**given), 3, seed=0, image_size=size)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_head_layers_freeze_and_rates(name: str) -> None:
    network = made(name)
    module, table = network.module, network.table
    names = [each for layer in table.layers for each in layer.parameters]
    assert sorted(names) == sorted(each for each, _ in module.named_parameters())
    k = len(table.body) // 2
    freeze = Freeze(module, table, k)
    freeze.apply()
    before = freeze.frozen_digests()
    assert set(freeze.frozen_names) == {each for layer in table.body[:k] for each in layer.parameters}
    freeze.train_mode()
    groups = param_groups(module, table, GroupRules(lr=1e-3, head_lr_mult=10, weight_decay=0.1))
    head = {each for g in groups if g["name"].startswith("head") for each in g["param_names"]}
    assert head == set(table.head.parameters)
    optimizer = torch.optim.AdamW(groups)
    images = torch.randn(2, 3, SMALL[name], SMALL[name])
    logits = module(images)
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    optimizer.step()
    freeze.verify(before)
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
    again = rebuild(network.architecture, 3)
    again.load_state_dict(module.state_dict())
    torch.testing.assert_close(again.eval()(images), module.eval()(images))


def test_a_network_without_a_graph_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "finetune"):
        network = made("crossvit_tiny_240")
    assert caplog.text.count("cannot be traced: its layers are timm's groups") == 1
    assert "are not available" in caplog.text
    assert all(layer.cut is None for layer in network.table.layers)
    assert [layer.output_shape for layer in describe("timm:crossvit_tiny_240").layers] == [
        None,
        None,
        None,
        None,
        (1000,),
    ]
    shapes = {layer.name: layer.output_shape for layer in describe("timm:test_vit").body}
    assert shapes["blocks.4"] == (101, 64)
    assert next(iter(shapes)) == "patch_embed.proj"
    with pytest.raises(UserError, match=r"model\.head\.at: CrossVit cannot be traced"):
        made("crossvit_tiny_240", head={"at": 2})


def test_forwards_with_further_arguments_are_traced() -> None:
    """A ViT of timm takes an optional mask. It has one layer per block."""
    names = [layer.name for layer in describe("timm:vit_tiny_patch16_224").body]
    assert names == ["patch_embed.proj", *(f"blocks.{i}" for i in range(12))]


def test_other_sizes_and_channels() -> None:
    network = made("vit_tiny_patch16_224", image_size=64, in_channels=1)
    assert network.architecture["image_size"] == 64
    assert network.module.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 3)
    again = rebuild(network.architecture, 3)
    again.load_state_dict(network.module.state_dict())


@pytest.mark.parametrize(
    ("name", "size", "fitted"),
    [
        ("test_vit", 128, "pos_embed"),
        ("test_vit_relpos", 128, ""),
        ("deit3_small_patch16_224", 96, "pos_embed"),
    ],
)
def test_positions_are_resampled_as_timm_does(name: str, size: int, fitted: str, tmp_path: Path) -> None:
    source = timm.create_model(name, num_classes=7)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    network = made(name, weights=str(tmp_path / "own.pth"), image_size=size)
    reference = timm.create_model(name, num_classes=7, img_size=size)
    whole = sys.modules[type(source).__module__].checkpoint_filter_fn(source.state_dict(), reference)
    reference.load_state_dict(whole)
    assert network.weights is not None
    assert network.weights.report.share == 1.0
    assert not network.weights.report.kept
    assert set(network.weights.report.adapted) == ({fitted} if fitted else set())
    head = set(network.table.head.parameters)
    for key, value in network.module.named_parameters():
        assert key in head or torch.equal(value, reference.get_parameter(key)), key


def test_a_timm_checkpoint_is_loaded(tmp_path: Path) -> None:
    source = timm.create_model("mobilenetv1_100", num_classes=7)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "own.pth")
    network = made("mobilenetv1_100", weights=str(tmp_path / "own.pth"))
    assert torch.equal(network.module.get_parameter("conv_stem.weight"), source.conv_stem.weight)
    assert network.weights is not None
    assert network.weights.report.share == 1.0
    assert network.input_spec.image_size == 224


def test_pretrained_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **options: Any) -> nn.Module:
        if options["pretrained"]:
            raise OSError("no such host")
        return create(*_, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"could not be downloaded from timm's hub \(no such host\)"):
        made("mobilenetv1_100", weights="default")


def test_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub returns a network with its classifier."""
    source = timm.create_model("mobilenetv1_100")

    def online(*_: Any, **options: Any) -> nn.Module:
        return source if options["pretrained"] else create(*_, **options)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", online)
    network = made("mobilenetv1_100", weights="default", head={"reuse": {"1": "hotdog"}})
    assert torch.equal(network.module.get_parameter("conv_stem.weight"), source.conv_stem.weight)
    assert network.reused == {"1": "hotdog (934)"}


def test_pretrained_weights_by_timms_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm reads the hub's cache without a connection, also for another image size."""
    hub = pytest.importorskip("huggingface_hub")
    source = timm.create_model("test_vit")
    folder = tmp_path / f"models--{source.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    for path, text in (("refs/main", "abc"), ("snapshots/abc/none", "")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    safetensors.torch.save_file(source.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    network = made("test_vit", weights="default", image_size=128, head={"reuse": {"0": "hotdog"}})
    assert torch.equal(network.module.get_parameter("cls_token"), source.cls_token)
    assert network.reused == {"0": "hotdog (934)"}
    assert network.weights is not None
    assert list(network.weights.report.adapted) == ["pos_embed"]
    with pytest.raises(WeightsError, match=r"elsewhere \(https://huggingface\.co/timm/test_vit2"):
        made("test_vit2", weights="default")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"timm .* has no 'mobilenetv1_10'\. Did you mean 'mobilenetv1_100'"):
        made("mobilenetv1_10")
    with pytest.raises(WeightsError, match="there is no file or run directory 'IMAGENET1K_V1'"):
        made("mobilenetv1_100", weights="IMAGENET1K_V1")


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"finetune-pictures\[timm\]"):
        made("mobilenetv1_100")
