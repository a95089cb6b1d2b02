"""One small network per family is trained, frozen and exported, as in `backbones-table --verify`."""

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from finetune.image.preprocessing import Preprocessing
from finetune.model.build import Network
from finetune.model.head import swap_head
from finetune.model.layers.find import find_layers

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_backbones.py"
# Families without a smaller network in conftest.py.
REAL = ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf"]
LARGE = ["alexnet", "googlenet", "inception_v3", "maxvit_t"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_backbones", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify_backbones"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def small_network(module: nn.Module, script: ModuleType) -> Network:
    path = find_layers(module).head.name
    swap_head(module, path, script.CLASSES, dropout=0.0, init="xavier")
    spec = Preprocessing(32, 32, "shorter", "bilinear", (0.5,) * 3, (0.5,) * 3)
    return Network(module, find_layers(module, path), path, spec, None, {})


def test_a_small_network_passes_the_checks(
    small: Callable[..., nn.Module], family: str, script: ModuleType
) -> None:
    network = small_network(small(family), script)
    script.check_structure(network)
    for precision in script.PRECISIONS:
        trained = script.check_training(network, max(1, len(network.table.body) // 2), 32, precision)
    assert script.check_exports(network, trained, 32, ["pt2"])["pt2"] < 1e-3


@pytest.mark.parametrize("name", REAL)
def test_a_torchvision_network_passes_the_checks(name: str, script: ModuleType) -> None:
    assert set(script.verify(name, 64, ["pt2"], only=2).differences) == {"pt2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL + LARGE)
def test_the_onnx_export_passes_the_checks(name: str, script: ModuleType) -> None:
    pytest.importorskip("onnxruntime")
    assert script.verify(name, 96).px in (96, 224, 299)


def test_the_page_shows_the_table(script: ModuleType) -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.TABLE.read_text(encoding="utf-8") == script.as_text(script._lines())
    assert script.BEGIN in text
    assert text == script.with_summary(text), "run scripts/backbones-table --verify with some backbone"


def test_the_checks_find_faults(
    small: Callable[..., nn.Module], script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters that no gradient reaches, and a parameter that belongs to no layer."""
    network = small_network(small("resnet"), script)
    dead = copy.deepcopy(network)
    nn.init.zeros_(dead.module.get_parameter("fc.weight"))
    monkeypatch.setattr(script, "STEPS", 1)
    with pytest.raises(AssertionError, match="no gradient reaches"):
        script.check_training(dead, 1, 32, "fp32")
    network.module.register_parameter("stray", nn.Parameter(network.module.get_parameter("fc.bias").clone()))
    with pytest.raises(AssertionError, match="in no layer"):
        script.check_structure(network)
