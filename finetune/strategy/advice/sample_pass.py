"""A pass of a sample of training images through the network: features at several depths, and statistics."""

import contextlib
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.cache.decoded import DecodedCache
from finetune.data.dataset import Split
from finetune.errors import DataError
from finetune.features.depths import DepthExtractor
from finetune.features.progress import OnStage
from finetune.features.softmax import Features, Targets
from finetune.strategy.advice.similarity import Logits, Shift
from finetune.strategy.probing.frozen_features import FeatureRows
from finetune.training.setup.prepare import Setup

# The number of images for the BatchNorm statistics, which have many positions per image.
RECORDED = 128
DEPTHS = (0.25, 0.5, 0.75, 1.0)
BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Sample:
    """Training images that are measured in detail.

    Attributes:
        cache: of the decoded images, resized and cropped as for evaluation; None: they are decoded each time.
    """

    setup: Setup
    split: Split
    cache: DecodedCache | None


@dataclass(frozen=True, eq=False)
class SamplePass:
    """The result of a pass of a :class:`Sample`.

    Attributes:
        layers: the depths, as numbers of layers.
        features: (N, D) at each depth, of the readable images.
        places: (N,), the places of these images in the sample.
        targets, groups: (N,), of these images.
        logits: of the source classifier; None without one.
        shift: of the BatchNorm statistics; None without BatchNorm.
        read: seconds to read one image.
    """

    layers: tuple[int, ...]
    features: list[Features]
    places: Targets
    targets: Targets
    groups: Targets | None
    logits: Logits | None
    shift: float | None
    read: float

    def rows(self, depth: int) -> FeatureRows:
        return FeatureRows(self.features[depth], self.targets, self.groups)


def pass_sample(sample: Sample, progress: OnStage) -> SamplePass:
    """Compute features at several depths, source logits and the BatchNorm shift in one pass.

    Raises:
        DataError: no image of the sample can be read.
    """
    setup, split = sample.setup, sample.split
    network, preprocessing = setup.network, setup.card.preprocessing
    module, size = network.module, preprocessing.image_size
    body = len(network.table.body)
    layers = tuple(dict.fromkeys(max(1, round(share * body)) for share in DEPTHS))
    extract = DepthExtractor(module.eval(), network.table, layers, size, preprocessing.channels)
    shift = Shift(module)
    rows: list[list[Tensor]] = []
    places: list[int] = []
    done, reading = 0, 0.0
    options = ReadOptions(BATCH_SIZE, setup.workers, setup.recipe.data.on_bad_image)
    batches = eval_batches(split, preprocessing, options, cache=sample.cache)
    # The images are sorted by class, so batches at regular intervals include all classes.
    every = max(1, len(split) // RECORDED)
    began = time.perf_counter()
    for number, batch in enumerate(batches):
        reading += time.perf_counter() - began
        if batch.indices:
            with shift.recording() if number % every == 0 else contextlib.nullcontext():
                rows.append([each.cpu() for each in extract(batch.images.to(setup.compute.device))])
            places += batch.indices
        done += len(batch.indices) + len(batch.bad)
        progress("at several depths", done, len(split))
        began = time.perf_counter()
    if not rows:
        raise DataError(f"none of the {len(split)} training images of the sample can be read")
    features = [torch.cat(each).numpy() for each in zip(*rows, strict=True)]
    found = np.asarray(places, dtype=np.int64)
    own = split.subset(found)
    return SamplePass(
        layers,
        features,
        found,
        own.targets,
        own.groups,
        _source_logits(setup, features[-1]),
        shift.value(),
        reading / max(done, 1),
    )


def _source_logits(setup: Setup, features: Features) -> Logits | None:
    weights = setup.network.weights
    head = weights.head if weights is not None else None
    if head is None or head.weight[0].numel() != features.shape[1]:
        return None
    weight = head.weight.flatten(1).cpu().numpy()
    logits: Logits = features @ weight.T + (0.0 if head.bias is None else head.bias.cpu().numpy())
    return logits
