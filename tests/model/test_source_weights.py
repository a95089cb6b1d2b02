"""Source weights: published, from a file, from a run, and their errors."""

import argparse
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from finetune.errors import UserError, WeightsError
from finetune.image.preprocessing import Preprocessing
from finetune.model.backbones import create
from finetune.model.source_weights import LoadedWeights, input_spec, load_source_weights
from finetune.recipe.catalog import backbones

ENTRY = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create("squeezenet1_1")


def load(weights: Any) -> tuple[nn.Module, LoadedWeights]:
    module = network(1)
    return module, load_source_weights(module, "squeezenet1_1", str(weights))


def same(a: nn.Module, b: nn.Module, *, head: bool) -> bool:
    state = b.state_dict()
    names = [name for name in state if head or not name.startswith("classifier")]
    return all(torch.equal(a.state_dict()[name], state[name]) for name in names)


def published(
    monkeypatch: pytest.MonkeyPatch, hub: Path, state: Any, scheme: str = "https"
) -> tuple[Path, str]:
    """Put a published file into torch's cache, and return it with its address, which does not answer."""
    folder = hub / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    path = (folder / "new.pth").rename(folder / f"squeezenet1_1-{digest[:8]}.pth")
    url = f"{scheme}://127.0.0.1:9/{path.name}"
    monkeypatch.setattr(ENTRY.value, "url", url)
    monkeypatch.setenv("TORCH_HOME", str(hub))
    return path, url


@pytest.mark.parametrize("name", ["default", "IMAGENET1K_V1"])
def test_published_weights_from_the_cache(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = network()
    published(monkeypatch, tmp_path, source.state_dict())
    module, loaded = load(name)
    assert same(module, source, head=True)
    assert loaded.origin == "torchvision IMAGENET1K_V1"
    assert loaded.head is not None
    assert loaded.head.classes is not None
    assert (len(loaded.head.classes), loaded.head.classes[934]) == (1000, "hotdog")
    assert input_spec("squeezenet1_1", name) == Preprocessing(224, 256, "shorter", "bilinear", *IMAGENET)
    assert capsys.readouterr().out == ""


def test_without_a_connection_the_message_says_how_to_get_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = published(monkeypatch, tmp_path, network().state_dict())
    path.unlink()
    with pytest.raises(WeightsError) as caught:
        load("default")
    for part in (url, str(path), "efficientnet_lite0", "IMAGENET1K_V1"):
        assert part in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = published(monkeypatch, tmp_path, network().state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is damaged or not the published file"):
        load("default")


def test_downloads_use_https_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = published(monkeypatch, tmp_path, network().state_dict(), scheme="http")
    path.unlink()
    with pytest.raises(WeightsError, match="over https only"):
        load("default")


def test_a_published_file_must_fill_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = network().state_dict()
    del state["features.0.bias"]
    published(monkeypatch, tmp_path, state)
    with pytest.raises(WeightsError, match=r"features\.0\.bias \(not in the file\)"):
        load("default")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_file_is_loaded_without_its_head(suffix: str, tmp_path: Path) -> None:
    source, path = network(), tmp_path / f"own{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": source.state_dict(), "epoch": 3}, path)
    module, loaded = load(path)
    assert same(module, source, head=False)
    assert same(module, network(1), head=True) is False
    assert torch.equal(
        module.get_parameter("classifier.1.weight"), network(1).get_parameter("classifier.1.weight")
    )
    assert loaded.report.unused.keys() == {"classifier.1.weight", "classifier.1.bias"}
    assert loaded.origin == str(path)


def test_a_files_saved_arguments_are_ignored(tmp_path: Path) -> None:
    source, path = network(), tmp_path / "model_9.pth"
    torch.save({"model": source.state_dict(), "args": argparse.Namespace(lr=0.1)}, path)
    assert same(load(path)[0], source, head=False)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_a_hostile_pickle_is_refused_and_does_nothing(how: str, tmp_path: Path) -> None:
    target, path = tmp_path / "harm", tmp_path / "hostile.pt"
    content = {"state_dict": {"features.0.weight": torch.ones(1)}, "extra": Hostile(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(Hostile(target)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(WeightsError, match=r"hostile\.pt: refused\. .*could run code"):
        load(path)
    assert not target.exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(network().state_dict(), whole)
    content = whole.read_bytes()
    damaged = {
        "empty.pt": b"",
        "empty.safetensors": b"",
        "text.pth": b"not a checkpoint\n",
        "cut.pt": content[: len(content) // 2],
        "header.safetensors": (2**60).to_bytes(8, "little") + b"{}",
        "pickle.pt": b"\x80\x04garbage",
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match=name):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "IMAGENET1K_V2",
            r"has no 'IMAGENET1K_V2'\. Did you mean 'IMAGENET1K_V1'\? It has: default, none, IMAGENET1K_V1",
        ),
        ("defualt", "Did you mean 'default'"),
        ("no/such/file.pt", "there is no file or run directory 'no/such/file.pt'"),
        ("file.safetensors", "there is no file or run directory"),
        ("x" * 5000, "has no"),
    ],
)
def test_unknown_weights_are_refused(weights: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load(weights)


def test_files_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"must be a \.pt, \.pth, \.safetensors file"):
        load(tmp_path / "weights.onnx")
    with pytest.raises(WeightsError, match="is not a run directory with a best checkpoint"):
        load(tmp_path)


def run_directory(root: Path, **changed: Any) -> Path:
    folder = root / "run" / "checkpoints" / "best"
    folder.mkdir(parents=True)
    preprocessing = {
        "image_size": 96, "resize": 110, "resize_mode": "squash", "interpolation": "bicubic",
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2],
    }  # fmt: skip
    card = {
        "format": 1,
        "architecture": {"backbone": "squeezenet1_1"},
        "classes": ["cat", "dog"],
        "preprocessing": preprocessing | changed,
    }
    (folder / "card.json").write_text(json.dumps(card))
    safetensors.torch.save_file(network().state_dict(), folder / "model.safetensors")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"sha256": digests}))
    return root / "run"


def test_a_run_provides_weights_and_preprocessing(tmp_path: Path) -> None:
    run = run_directory(tmp_path)
    module, loaded = load(run)
    assert same(module, network(), head=False)
    assert loaded.head is not None
    assert loaded.head.classes is None  # the card names two, and the head has 1000
    assert input_spec("squeezenet1_1", str(run)) == Preprocessing(
        96, 110, "squash", "bicubic", (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
    )


@pytest.mark.parametrize("file", ["model.safetensors", "card.json", "manifest.json"])
def test_a_damaged_run_is_refused(file: str, tmp_path: Path) -> None:
    path = run_directory(tmp_path) / "checkpoints" / "best" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"not the file that was saved|cannot be read|manifest|incomplete"):
        load(tmp_path / "run")


def test_a_run_of_another_backbone_is_refused(tmp_path: Path) -> None:
    run = run_directory(tmp_path)
    with pytest.raises(WeightsError, match=r"was trained with backbone 'squeezenet1_1'.*Set model\.backbone"):
        input_spec("resnet18", str(run))


@pytest.mark.parametrize(
    "changed",
    [
        {"std": [0.2, 0.0, 0.2]}, {"mean": [0.5]}, {"mean": [0.5, float("nan"), 0.5]}, {"image_size": 0},
        {"interpolation": "magic"}, {"resize": "a"}, {"std": None},
    ],
)  # fmt: skip
def test_a_run_with_an_impossible_card(tmp_path: Path, changed: dict[str, Any]) -> None:
    run = run_directory(tmp_path, **changed)
    with pytest.raises(WeightsError, match=r"card\.json: preprocessing"):
        load(run)


def test_the_preprocessing_of_published_weights() -> None:
    half = (0.5, 0.5, 0.5)
    assert input_spec("efficientnet_lite0", "default") == Preprocessing(
        224, 256, "shorter", "bicubic", half, half
    )
    assert input_spec("resnet50", "IMAGENET1K_V2") == Preprocessing(
        224, 232, "shorter", "bilinear", *IMAGENET
    )
    assert input_spec("resnet50", "none") == input_spec("resnet50", "default")
    assert input_spec("vit_b_16", "IMAGENET1K_SWAG_E2E_V1").image_size == 384
    # torchvision's networks renormalise to this. Here the preprocessing does.
    assert input_spec("inception_v3", "default") == Preprocessing(299, 342, "shorter", "bilinear", half, half)
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        input_spec("resnet5O", "default")


def test_googlenet_computes_what_torchvisions_computes() -> None:
    """The preprocessing here replaces torchvision's transform_input."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = models.googlenet(
            weights=None, transform_input=True, init_weights=False, aux_logits=False
        ).eval()
    ours = create("googlenet", auxiliary=False).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in IMAGENET)
    spec = input_spec("googlenet", "default")
    here = (image - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours(here), theirs((image - mean) / std))


def test_every_backbone_has_an_input_spec() -> None:
    for name, info in backbones().items():
        for weights in info.weights:
            spec = input_spec(name, weights.name)
            assert (spec.image_size, spec.resize) == (weights.image_size, weights.resize)
