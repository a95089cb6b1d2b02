"""Images and a source network to :class:`Facts`: the table of contents of what advice rests on.

The first pass of the training images (:mod:`~finetune.strategy.advice.first_pass`); one of a sample of
at most ``SAMPLE``, at several depths; and augmented copies of that sample.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.data.batches.loaders import eval_batches, read_draws
from finetune.data.batches.options import ReadOptions
from finetune.data.cache.decoded import DecodedCache, decoded_in_memory
from finetune.data.dataset import Split
from finetune.data.holdout.folds import inner_folds
from finetune.data.keys import key
from finetune.errors import DataError
from finetune.features.depths import DepthExtractor
from finetune.features.extract import costs
from finetune.features.softmax import Features, Targets
from finetune.features.solve import LinearProblem, choose_decay
from finetune.image.augmentations import COLOUR_KEYS
from finetune.image.transforms import EvalTransform
from finetune.recipe.schema import Recipe
from finetune.strategy.advice.augmentations import AUGMENTATIONS, MIRRORING, transform_of, try_out
from finetune.strategy.advice.facts import Facts, Probed, Seconds, Tried
from finetune.strategy.advice.first_pass import (
    FirstPass,
    Tell,
    compute_for,
    first_pass,
    in_best_shape,
    silent,
)
from finetune.strategy.advice.sample import some_of, twice_or_more
from finetune.strategy.advice.similarity import Shift, confidence, told_apart
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import Compute, choose_compute
from finetune.training.setup.prepare import Setup

# Images at which depths, statistics and predictions are looked at.
SAMPLE = 512
# Of these, about so many for the statistics, which have many places an image.
WATCHED = 128
# Augmented copies are computed of so many of them, fewer where the network is large: all copies together
# take at most so many floating-point operations (about half a minute on two cores), but for 64 images.
COPIED, FEWEST_COPIED, OPERATIONS = 256, 64, 3e12
DEPTHS = (0.25, 0.5, 0.75, 1.0)
TIMED = 8
TOGETHER = 16

Logits = npt.NDArray[np.float32]
# Which augmentations to try out on so many images, given all else that was measured.
Augmentations = Callable[[Facts, int], Sequence[str]]


@dataclass(frozen=True)
class _Close:
    """A sample looked at closely: features by depth, each (N, D), of the images of the sample that could be
    read (``places``), their targets and groups, the source's logits, and the seconds that reading one
    took."""

    layers: tuple[int, ...]
    features: list[Features]
    places: Targets
    targets: Targets
    groups: Targets | None
    logits: Logits | None
    shift: float | None
    read: float


def measure(
    recipe: Recipe,
    *,
    device: str | None = None,
    tell: Tell = silent,
    augmentations: Augmentations = lambda facts, n: tuple(AUGMENTATIONS),
) -> Facts:
    """Measure ``recipe``'s source network on its training images; val and test are counted only.

    Args:
        augmentations: which to try out on so many images, given all else that was measured.
        tell: called as images go through the network, for one purpose after the other.

    Raises:
        UserError: weights that cannot be had, or a network that cannot be cut.
        DataError: the data cannot serve, or a class has fewer than two training images.
    """
    compute = compute_for(recipe, device)
    with in_force(compute):
        return look_closer(recipe, first_pass(recipe, compute, tell), tell, augmentations)


def look_closer(recipe: Recipe, first: FirstPass, tell: Tell, augmentations: Augmentations) -> Facts:
    """What :func:`measure` says, after its first pass, whose ``compute`` is in force."""
    first = in_best_shape(recipe, first, tell)
    source, setup, (features, targets, groups) = first.source, first.setup, first.probed
    classes, train = len(source.classes), source.splits["train"]
    counts = train.class_counts(classes)
    network, card = setup.network, setup.card
    sample = train.subset(some_of(train.targets, train.groups, max(SAMPLE, 4 * classes), recipe.seed))
    # As evaluation resizes and cuts them, which is also what most copies are made from.
    own_bands = card.preprocessing.reads == "bands"
    keeping = contextlib.nullcontext() if own_bands else decoded_in_memory(recipe.cache.limit_bytes)
    with keeping as decoded:
        close = _look(setup, sample, decoded, tell)
        body = network.table.body
        layer = body[-1]
        depths = tuple(
            _probe(found, close.targets, close.groups, recipe.seed, number, body[number - 1].name)
            for number, found in zip(close.layers, close.features, strict=True)
        )
        best = max(range(len(depths)), key=lambda place: depths[place].top1)
        preprocessing = card.preprocessing
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
            probe=_probe(features, targets, groups, recipe.seed, layer.number, layer.name),
            shares=tuple(each.flops / max(priced[-1].flops, 1) for each in priced),
            shift=close.shift,
            confidence=None if close.logits is None else confidence(close.logits),
            told_apart=None if close.logits is None else told_apart(close.logits, close.targets),
            tried={},
            seconds=_time(setup, choose_compute(first.compute.device, recipe.train), close.read),
            computed=first.computed,
            cached=first.readable - first.computed,
            shapes=first.shapes,
        )
        some = _copied(close, priced[-1].flops, recipe.seed)
        names = augmentations(facts, len(some))
        if own_bands:
            names = tuple(name for name in names if name not in COLOUR_KEYS)
        return dataclasses.replace(
            facts, tried=_try(setup, sample, close, best, names, some, decoded, tell) if names else {}
        )


def _copied(close: _Close, flops: int, seed: int) -> Targets:
    """The places in the sample of the images that augmented copies are made of; ``flops`` is of one."""
    affordable = int(OPERATIONS / (len(AUGMENTATIONS) * max(flops, 1)))
    number = max(FEWEST_COPIED, min(COPIED, affordable))
    return twice_or_more(close.targets, close.groups, some_of(close.targets, close.groups, number, seed))


def _look(setup: Setup, sample: Split, decoded: DecodedCache | None, tell: Tell) -> _Close:
    """One pass of the sample through the network as it is, with an eye on its BatchNorms."""
    network, preprocessing = setup.network, setup.card.preprocessing
    module, size = network.module, preprocessing.image_size
    body = len(network.table.body)
    layers = tuple(dict.fromkeys(max(1, round(share * body)) for share in DEPTHS))
    depths = DepthExtractor(module.eval(), network.table, layers, size, preprocessing.channels)
    shift = Shift(module)
    rows: list[list[Tensor]] = []
    places: list[int] = []
    done, reading = 0, 0.0
    batches = eval_batches(
        sample,
        preprocessing,
        ReadOptions(TOGETHER, setup.workers, setup.recipe.data.on_bad_image),
        cache=decoded,
    )
    # Images are in the order of their classes, so every so many batches show all of them.
    every = max(1, len(sample) // WATCHED)
    began = time.perf_counter()
    for number, batch in enumerate(batches):
        reading += time.perf_counter() - began
        if batch.indices:
            with shift.watching() if number % every == 0 else contextlib.nullcontext():
                rows.append([each.cpu() for each in depths(batch.images.to(setup.compute.device))])
            places += batch.indices
        done += len(batch.indices) + len(batch.bad)
        tell("looked at more closely", done, len(sample))
        began = time.perf_counter()
    if not rows:
        raise DataError(f"none of the {len(sample)} training images of the sample can be read")
    features = [torch.cat(each).numpy() for each in zip(*rows, strict=True)]
    head = network.weights.head if network.weights is not None else None
    logits: Logits | None = None
    if head is not None and head.weight[0].numel() == features[-1].shape[1]:
        weight = head.weight.flatten(1).cpu().numpy()
        logits = features[-1] @ weight.T + (0.0 if head.bias is None else head.bias.cpu().numpy())
    found = np.asarray(places, dtype=np.int64)
    own = sample.subset(found)
    return _Close(
        layers, features, found, own.targets, own.groups, logits, shift.value(), reading / max(done, 1)
    )


def _try(
    setup: Setup,
    sample: Split,
    close: _Close,
    best: int,
    names: Sequence[str],
    some: Targets,
    decoded: DecodedCache | None,
    tell: Tell,
) -> dict[str, Tried]:
    """What augmentations do, on ``some`` of the sample; nothing where those have no two classes.

    Args:
        best: the depth at which the classes are told apart best.
        names: of the augmentations.
        decoded: what the sample's images are as evaluation resizes and cuts them.
    """
    seed, network, preprocessing = setup.recipe.seed, setup.network, setup.card.preprocessing
    classes, found_targets = np.unique(close.targets[some], return_inverse=True)
    targets = found_targets.reshape(-1).astype(np.int64)
    groups = None if close.groups is None else close.groups[some]
    folds = inner_folds(targets, seed, groups) if len(classes) > 1 else []
    if not folds:
        return {}
    size, channels = preprocessing.image_size, preprocessing.channels
    depths = DepthExtractor(network.module.eval(), network.table, close.layers, size, channels, folded=True)
    plain = [each[some] for each in close.features]
    decay = choose_decay(LinearProblem(plain[best], targets, len(classes)), folds).decay
    total, done, found = len(names) * len(some), 0, {}
    of_evaluation = EvalTransform(preprocessing).base_facts
    for name in names:
        transform = transform_of(name, preprocessing)
        draws = [(int(place), key(seed, "advice", name, int(place))) for place in close.places[some]]
        batches = read_draws(
            sample,
            transform,
            draws,
            ReadOptions(TOGETHER, setup.workers),
            cache=decoded if transform.base_facts == of_evaluation else None,
        )
        rows = []
        for batch in batches:
            rows.append(depths(batch.images.to(setup.compute.device)))
            done += len(batch.indices)
            tell("made anew by augmentation", done, total)
        copies = [torch.cat(each).cpu().numpy() for each in zip(*rows, strict=True)]
        found[name] = try_out(
            plain,
            copies,
            targets,
            folds,
            best=best,
            decay=decay,
            mirrored=name in MIRRORING,
        )
    return found


def _probe(
    features: Features, targets: Targets, groups: Targets | None, seed: int, layer: int, name: str
) -> Probed:
    """Softmax regression, by cross-validation, on classes of which there are two images, or groups, or
    more."""
    some = twice_or_more(targets, groups, np.arange(len(targets)))
    classes, own = np.unique(targets[some], return_inverse=True)
    what = "images" if groups is None else "groups (data.group_by) of images"
    if len(classes) < 2:
        raise DataError(f"advice needs two classes of which two training {what} or more can be read")
    own_targets = own.reshape(-1).astype(np.int64)
    folds = inner_folds(own_targets, seed, None if groups is None else groups[some])
    chosen = choose_decay(LinearProblem(features[some], own_targets, len(classes)), folds)
    if chosen.top1 is None:
        raise DataError("the groups of data.group_by cannot be put so that a probe learns every class")
    return Probed(layer, name, chosen.top1, len(some))


def _time(setup: Setup, training: Compute, read: float) -> Seconds:
    """A forward pass and, as ``training`` has it, a step of a small batch, each the second time."""
    network, preprocessing = setup.network, setup.card.preprocessing
    size = preprocessing.image_size
    images = torch.randn(TIMED, preprocessing.channels, size, size, device=setup.compute.device)
    module = network.module.eval()

    def seconds(work: Callable[[], Any]) -> float:
        work()
        if setup.compute.device.type == "cuda":
            torch.cuda.synchronize(setup.compute.device)
        began = time.perf_counter()
        work()
        if setup.compute.device.type == "cuda":
            torch.cuda.synchronize(setup.compute.device)
        return (time.perf_counter() - began) / TIMED

    def forward() -> None:
        with torch.no_grad():
            module(images)

    def step() -> None:
        with training.autocast():
            loss = module(images).sum()
        loss.backward()
        module.zero_grad(set_to_none=True)

    # In eval mode, so that no statistics move; a step costs the same.
    return Seconds(read, seconds(forward), seconds(step))
