"""A finished run without training: a small random network, saved as `train` saves it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tiny
from finetune.checkpoint.card import ModelCard
from finetune.checkpoint.storage import CARD, MODEL, NOVELTY, save_checkpoint
from finetune.decision.abstain import Answers
from finetune.decision.calibration import Calibration
from finetune.decision.conformal import Conformal
from finetune.decision.decision import Decision
from finetune.decision.novelty import Novelty, unit_rows
from finetune.features.last_layer import tap_last_layer
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import build
from finetune.recipe.load import dump_recipe
from finetune.recipe.schema import Recipe
from finetune.training.novelty_file import reference_tensors
from finetune.training.trained import Trained, load_trained

SIZE = 32
THRESHOLD = 0.095
MakeRun = Callable[..., Path]


def make_run(run: Path, source: Path | str, classes: tuple[str, ...] = ("disc", "square")) -> Path:
    """Make a run directory with a random network whose predictions differ between images.

    Its best checkpoint is calibrated, and knows which images are unlike others.
    """
    recipe = Recipe.model_validate(
        {
            "data": {"source": str(source), "workers": 0, "image_size": SIZE},
            "model": {"backbone": "resnet18", "weights": "none"},
            "train": {"batch_size": 5},
        }
    )
    network = build(recipe.model, len(classes), seed=1, image_size=SIZE)
    module = network.module.eval()
    with torch.no_grad():
        # Larger logits: the predictions of a random network hardly differ.
        module.get_parameter("fc.weight").mul_(20)
    preprocessing = Preprocessing(
        image_size=SIZE,
        resize=36,
        resize_mode="shorter",
        interpolation="bilinear",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    card = ModelCard(network.architecture, classes, preprocessing)
    novelty, reference = _novelty(module, card)
    val = np.random.default_rng(0).normal(0, 1, (20, len(classes))).astype(np.float32)
    targets = np.where(np.arange(20) % 4, val.argmax(axis=1), 0)
    decided = replace(
        card,
        decision=Decision(
            Calibration(2.5, "val", 20),
            novelty=novelty,
            conformal=Conformal.of(val, targets),
            answers=Answers.of(val, targets),
        ),
    )
    run.mkdir(parents=True)
    (run / "resolved.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    for name in ("best", "last"):
        tensors: dict[str, Mapping[str, torch.Tensor]] = {MODEL: module.state_dict()}
        documents = {CARD: card.to_dict()}
        if name == "best":
            tensors, documents = tensors | {NOVELTY: reference_tensors(reference)}, {CARD: decided.to_dict()}
        save_checkpoint(run / "checkpoints", name, tensors, documents, keep_previous=False)
        with torch.no_grad():
            module.get_parameter("fc.weight").neg_()
    return run


def _novelty(module: nn.Module, card: ModelCard) -> tuple[Novelty, torch.Tensor]:
    """Features of dark noise, and a threshold that some images exceed."""
    tapped = tap_last_layer(module, card.architecture)
    recorded = tapped.record()
    noise = torch.randn(9, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 1
    with torch.inference_mode():
        tapped.module(noise)
    reference = unit_rows(recorded.take()).astype(np.float16)
    return Novelty(THRESHOLD, 20, len(reference), 5), torch.from_numpy(reference)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """A read-only run on ``shapes``. Its checkpoints best and last predict opposite classes."""
    return make_run(tmp_path_factory.mktemp("runs") / "shapes", shapes)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The same of a tiny network, for tests in which it stands in."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.stand_in(patch)
        return make_run(tmp_path_factory.mktemp("runs") / "tiny", shapes)


@pytest.fixture(scope="session")
def trained(run: Path) -> Trained:
    return load_trained(run)


@pytest.fixture(scope="session")
def onnx_model(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """The run as an ONNX file. An export takes seconds, so all tests share one."""
    from finetune.deploy.export import export

    target = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(trained, "onnx", target)
    return target


@pytest.fixture
def four(tmp_path: Path) -> list[str]:
    """A red image, an unreadable one, a blue one and a green one."""
    colours = {"red": (255, 0, 0), "blue": (0, 51, 255), "green": (0, 255, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (9, 8), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return [str(tmp_path / f"{name}.png") for name in ("red", "broken", "blue", "green")]
