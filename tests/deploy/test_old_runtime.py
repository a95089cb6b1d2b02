"""Exported files run on the oldest onnxruntime for this Python in the package index.

Marked slow, because it installs that runtime in a separate environment.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.checkpoint.card import ModelCard
from finetune.deploy.agreement import compare_logits
from finetune.deploy.onnx_format import write_onnx
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import build
from finetune.recipe.schema import ModelSection

pytestmark = pytest.mark.slow

# 1.15, of May 2023, is the first one for Python 3.11; it was built against NumPy 1.
OLD = ("onnxruntime<1.16", "numpy<2")
CODE = """
import json, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(logits,) = session.run(["logits"], {"images": numpy.load(sys.argv[2])})
numpy.save(sys.argv[3], logits)
print(json.dumps([onnxruntime.__version__, session.get_modelmeta().custom_metadata_map]))
"""
FAMILIES = {
    "resnet18": 64,
    "efficientnet_lite0": 64,
    "efficientnet_b0": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v2": 64,
    "shufflenet_v2_x0_5": 64,
    "densenet121": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vit_b_16": 32,
    "maxvit_t": 224,
    "regnet_y_400mf": 64,
    "squeezenet1_1": 64,
    "vgg11": 64,
    "inception_v3": 96,
}


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.version_info >= (3, 12):
        pytest.skip("no onnxruntime of 2023 is built for this Python")
    home = tmp_path_factory.mktemp("old")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *OLD],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"the package index does not give it: {installed.stderr[-200:]}")
    return python


@pytest.mark.parametrize("backbone", sorted(FAMILIES))
def test_the_file_computes_what_the_model_computes(backbone: str, old_python: Path, tmp_path: Path) -> None:
    size = FAMILIES[backbone]
    section = ModelSection(backbone=backbone, weights="none")
    network = build(section, 5, seed=0, image_size=size)
    module = network.module.eval()
    with torch.no_grad():
        for parameter in module.get_submodule(network.head_path).parameters():
            parameter.normal_()
    preprocessing = Preprocessing(size, size, "shorter", "bilinear", (0.5,) * 3, (0.5,) * 3)
    card = ModelCard(network.architecture, tuple("abcde"), preprocessing)
    model, images, logits = tmp_path / "model.onnx", tmp_path / "images.npy", tmp_path / "logits.npy"
    write_onnx(module, card, model)
    batch = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    np.save(images, batch.numpy())
    ran = subprocess.run(
        [old_python, "-c", CODE, model, images, logits], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    version, metadata = json.loads(ran.stdout)
    assert version.startswith("1.15.")
    assert ModelCard.from_dict(json.loads(metadata["finetune.card"]), "model") == card
    with torch.inference_mode():
        expected = module(batch).numpy()
    _, scale = compare_logits(expected, np.load(logits))
    assert scale > 1e-6
