"""An unknown name is an error, and never takes the last branch of the code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.data.sources.named.drawn import draw_source
from finetune.deploy.export import export
from finetune.errors import FinetuneError
from finetune.features.placement import Budget, Workload, choose_placement
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import TrainTransform
from finetune.model.backbones import create
from finetune.model.batchnorm import raise_batchnorm_momentum
from finetune.model.freeze import Freeze
from finetune.model.head import HeadDesign, swap_head
from finetune.model.layers.find import find_layers
from finetune.recipe.schema import AugmentSection, TrainSection
from finetune.training.compute.precision import Compute
from finetune.training.run.position import Best
from finetune.training.setup.loss import loss_function
from finetune.training.steps.optimizer import build_optimizer
from finetune.training.steps.schedule import Schedule

CPU = torch.device("cpu")
SPLIT = draw_source(2, 4, 24).splits["train"]
PREPROCESSING = Preprocessing(16, 18, "shorter", "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SAME = TrainTransform(AugmentSection(), PREPROCESSING)


def decided(wanted: Any) -> object:
    work = Workload(rows=1, uses=2.0, row_bytes=1, flops=1, pixels=1)
    return choose_placement(work, Budget(wanted, limit=100), speed=1e9)


def optimizer(kind: Any) -> object:
    parameter = nn.Parameter(torch.zeros(2))
    groups = [{"params": [parameter], "param_names": ["p"], "lr": 0.1, "weight_decay": 0.0}]
    return build_optimizer(kind, groups, momentum=0.9, device=CPU)


def froze(batchnorm: Any) -> object:
    network = create("squeezenet1_1", 2)
    return Freeze(network, find_layers(network), 1, batchnorm)


# Kind of name -> a call with it, and the known names.
TAKES: dict[str, tuple[Callable[[Any], object], tuple[str, ...]]] = {
    "optimizer": (optimizer, ("sgd", "adamw")),
    "schedule": (lambda kind: Schedule(kind, 10), ("cosine", "one_cycle", "step", "constant")),
    "head type": (lambda kind: HeadDesign(kind=kind), ("linear", "cosine")),
    "head init": (
        lambda init: swap_head(nn.Sequential(nn.Linear(2, 3)), "0", 2, dropout=0.0, init=init),
        ("xavier", "normal", "zero", "default"),
    ),
    "batchnorm mode": (froze, ("train", "frozen")),
    "batchnorm_momentum": (
        lambda setting: raise_batchnorm_momentum(nn.BatchNorm2d(2), setting, 5),
        ("auto", "keep"),
    ),
    "select": (
        lambda select: Best(1, 0.5, 0.5).beaten_by(Best(2, 0.6, 0.4), select),
        ("top1", "balanced_accuracy", "loss", "last"),
    ),
    "precision": (lambda name: Compute(CPU, name, 1, ""), ("fp32", "bf16", "fp16")),
    "memory format": (
        lambda name: Compute(CPU, "fp32", 1, "", memory_format=name),
        ("channels_last", "contiguous"),
    ),
    "class_weights": (
        lambda name: loss_function(TrainSection().model_copy(update={"class_weights": name}), SPLIT, "ab"),
        ("none", "balanced"),
    ),
    "loss": (
        lambda name: loss_function(TrainSection().model_copy(update={"loss": name}), SPLIT, "ab"),
        ("cross_entropy", "focal"),
    ),
    "cache.where": (decided, ("auto", "memory", "off")),
    "sampler": (
        lambda name: Sampling(0, sampler=name),
        ("shuffle", "balanced"),
    ),
    "on_bad_image": (
        lambda name: list(eval_batches(SPLIT, PREPROCESSING, ReadOptions(4, on_bad_image=name))),
        ("error", "skip"),
    ),
    "crop": (
        lambda name: TrainTransform(AugmentSection().model_copy(update={"crop": name}), PREPROCESSING),
        ("none", "random_resized"),
    ),
    "decode": (lambda name: TrainTransform(AugmentSection(), PREPROCESSING, name), ("auto", "full")),
}


@pytest.mark.parametrize("what", TAKES)
def test_an_unknown_name_is_an_error(what: str) -> None:
    call, known = TAKES[what]
    for name in known:
        call(name)
    unknown: tuple[str | None, ...] = ("adam", "", known[0].upper(), known[0] + " ", None)
    for wrong in unknown:
        with pytest.raises(FinetuneError, match=rf"unknown {what} "):
            call(wrong)


def test_an_unknown_format_is_an_error(tmp_path: Path) -> None:
    for name in ("tflite", "ONNX", ""):
        with pytest.raises(FinetuneError, match=r"unknown format .*onnx, pt2, safetensors"):
            export(cast(Any, None), cast(Any, name), tmp_path / "model")
