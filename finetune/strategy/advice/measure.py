"""Measures the facts of images and a source network: the table of contents of the measurements.

There are three passes: all training images once (:mod:`~finetune.strategy.advice.first_pass`), a sample at
several depths (:mod:`~finetune.strategy.advice.sample_pass`), and augmented copies of that sample
(:mod:`~finetune.strategy.advice.copies`).
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from finetune.data.cache.decoded import DecodedCache
from finetune.data.holdout.folds import inner_folds
from finetune.errors import DataError
from finetune.features.extract import costs
from finetune.features.progress import OnStage, no_progress
from finetune.features.solve import LinearProblem, choose_decay
from finetune.image.augmentations import COLOUR_KEYS
from finetune.model.layers.table import Layer
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.augmentations import AUGMENTATIONS
from finetune.strategy.advice.copies import images_to_copy, measure_augmentations
from finetune.strategy.advice.facts import Facts, Probed, Seconds
from finetune.strategy.advice.first_pass import FirstPass, first_pass, in_best_shape
from finetune.strategy.advice.sample import learnable, stratified_sample
from finetune.strategy.advice.sample_pass import Sample, pass_sample
from finetune.strategy.advice.similarity import confidence, told_apart
from finetune.strategy.probing.frozen_features import FeatureRows, frozen_compute
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import Compute, choose_compute
from finetune.training.setup.prepare import Setup

# The number of images in the sample.
SAMPLE = 512
# The number of images in a batch that is timed.
TIMED_IMAGES = 8

# Chooses the augmentations to measure, from the other facts and the number of images that are copied.
AugmentationsToTry = Callable[[Facts, int], Sequence[str]]


def measure(
    recipe: Recipe,
    *,
    device: str | None = None,
    progress: OnStage = no_progress,
    augmentations: AugmentationsToTry = lambda facts, n: tuple(AUGMENTATIONS),
) -> Facts:
    """Measure ``recipe``'s source network on its training images. Images of val and test are only counted.

    Raises:
        UserError: the weights are not available, or the network cannot be cut.
        DataError: the data is unusable, or a class has fewer than two training images.
    """
    compute = frozen_compute(recipe, device)
    with in_force(compute):
        first = first_pass(recipe, compute, progress)
        return measure_after(first, recipe, progress, augmentations)


def measure_after(
    first: FirstPass, recipe: Recipe, progress: OnStage, augmentations: AugmentationsToTry
) -> Facts:
    """Measure the facts that are left after the first pass, with its ``compute`` in force."""
    first = in_best_shape(recipe, first, progress)
    source, setup = first.source, first.setup
    classes, train = len(source.classes), source.splits["train"]
    counts = train.class_counts(classes)
    network, preprocessing = setup.network, setup.card.preprocessing
    body = network.table.body
    number = max(SAMPLE, 4 * classes)
    split = train.subset(stratified_sample(train.targets, train.groups, number, recipe.seed))
    own_bands = preprocessing.reads == "bands"
    caching: contextlib.AbstractContextManager[DecodedCache | None] = contextlib.nullcontext()
    if not own_bands:
        caching = contextlib.closing(DecodedCache(None, recipe.cache.limit_bytes))
    with caching as cache:
        sample = Sample(setup, split, cache)
        found = pass_sample(sample, progress)
        depths = tuple(
            _probe(found.rows(depth), recipe.seed, body[number - 1])
            for depth, number in enumerate(found.layers)
        )
        priced = costs(network.module, network.table, preprocessing.image_size, preprocessing.channels)
        facts = Facts(
            source=source.name,
            notes=source.notes,
            classes=classes,
            train=len(train),
            val=len(source.splits["val"]),
            test=len(source.splits.get("test", ())),
            fewest=int(counts.min()),
            most=int(counts.max()),
            backbone=recipe.model.backbone,
            weights=network.weights.origin if network.weights is not None else "none",
            image_size=preprocessing.image_size,
            depths=depths,
            probe=_probe(first.probed, recipe.seed, body[-1]),
            shares=tuple(each.flops / max(priced[-1].flops, 1) for each in priced),
            shift=found.shift,
            confidence=None if found.logits is None else confidence(found.logits),
            told_apart=None if found.logits is None else told_apart(found.logits, found.targets),
            tried={},
            seconds=_measure_seconds(setup, choose_compute(setup.compute.device, recipe.train), found.read),
            computed=first.computed,
            cached=first.readable - first.computed,
            shapes=first.shapes,
            uneven=first.uneven,
        )
        some = images_to_copy(found, priced[-1].flops, recipe.seed)
        names = augmentations(facts, len(some))
        if own_bands:
            names = tuple(name for name in names if name not in COLOUR_KEYS)
        if not names:
            return facts
        best = max(range(len(depths)), key=lambda place: depths[place].top1)
        tried = measure_augmentations(sample, found, names, some, best, progress)
        return dataclasses.replace(facts, tried=tried)


def _probe(rows: FeatureRows, seed: int, layer: Layer) -> Probed:
    """Cross-validate softmax regression on the classes that can be learned."""
    what = "images" if rows.groups is None else "groups (data.group_by) of images"
    rows, classes = learnable(rows)
    if classes < 2:
        raise DataError(f"advice needs two classes, each with two or more readable training {what}")
    folds = inner_folds(rows.targets, seed, rows.groups)
    chosen = choose_decay(LinearProblem(rows.features, rows.targets, classes), folds)
    if chosen.top1 is None:
        raise DataError(
            "the groups of data.group_by cannot be divided into folds that all train on every class"
        )
    return Probed(layer.number, layer.name, chosen.top1, len(rows.targets))


def _measure_seconds(setup: Setup, training: Compute, read: float) -> Seconds:
    """Time a forward pass and, with the precision of ``training``, a training step.

    Each runs twice on a small batch; the second run counts. ``read`` is the time to read one image.
    """
    network, preprocessing = setup.network, setup.card.preprocessing
    size = preprocessing.image_size
    images = torch.randn(TIMED_IMAGES, preprocessing.channels, size, size, device=setup.compute.device)
    module = network.module.eval()

    def seconds(work: Callable[[], Any]) -> float:
        for _ in range(2):
            began = time.perf_counter()
            work()
            if setup.compute.device.type == "cuda":
                torch.cuda.synchronize(setup.compute.device)
        return (time.perf_counter() - began) / TIMED_IMAGES

    def forward() -> None:
        with torch.no_grad():
            module(images)

    def step() -> None:
        with training.autocast():
            loss = module(images).sum()
        loss.backward()
        module.zero_grad(set_to_none=True)

    # In eval mode, so that no statistics change; a step costs the same.
    return Seconds(read, seconds(forward), seconds(step))
