"""Augmented copies of a sample: made, passed through the network, and compared with the originals."""

from collections.abc import Sequence

import torch

from finetune.data.batches.loaders import read_draws
from finetune.data.batches.options import ReadOptions
from finetune.data.holdout.folds import inner_folds
from finetune.data.keys import key
from finetune.features.depths import DepthExtractor
from finetune.features.progress import OnStage
from finetune.features.softmax import Targets
from finetune.features.solve import LinearProblem, choose_decay
from finetune.image.transforms import EvalTransform
from finetune.strategy.advice.augmentations import (
    AUGMENTATIONS,
    MIRRORING,
    Originals,
    compare_copies,
    transform_of,
)
from finetune.strategy.advice.facts import Tried
from finetune.strategy.advice.sample import learnable, repeated, stratified_sample
from finetune.strategy.advice.sample_pass import BATCH_SIZE, Sample, SamplePass

# The number of images that are copied: fewer if the network is large. All copies together take at most this
# number of floating-point operations (about half a minute on two cores), except for the first 64 images.
COPIED, FEWEST_COPIED, OPERATIONS = 256, 64, 3e12


def images_to_copy(found: SamplePass, flops: int, seed: int) -> Targets:
    """Choose the places in ``found`` of the images that are copied; ``flops`` is the cost of one image."""
    affordable = int(OPERATIONS / (len(AUGMENTATIONS) * max(flops, 1)))
    number = max(FEWEST_COPIED, min(COPIED, affordable))
    some = stratified_sample(found.targets, found.groups, number, seed)
    return repeated(found.targets, found.groups, some)


def measure_augmentations(
    sample: Sample, found: SamplePass, names: Sequence[str], some: Targets, best: int, progress: OnStage
) -> dict[str, Tried]:
    """Measure each of the augmentations ``names`` on copies of ``some`` images; empty if they have one class.

    Args:
        some: places in ``found``, from :func:`images_to_copy`.
        best: the depth at which a probe is best.
    """
    setup = sample.setup
    seed, network, preprocessing = setup.recipe.seed, setup.network, setup.card.preprocessing
    rows, classes = learnable(found.rows(best).subset(some))
    folds = inner_folds(rows.targets, seed, rows.groups) if classes > 1 else []
    if not folds:
        return {}
    decay = choose_decay(LinearProblem(rows.features, rows.targets, classes), folds).decay
    plain = [each[some] for each in found.features]
    originals = Originals(plain, rows.targets, folds, best, decay)
    size, channels = preprocessing.image_size, preprocessing.channels
    extract = DepthExtractor(network.module.eval(), network.table, found.layers, size, channels, folded=True)
    evaluation_facts = EvalTransform(preprocessing).base_facts
    total, done, tried = len(names) * len(some), 0, {}
    for name in names:
        transform = transform_of(name, preprocessing)
        draws = [(int(place), key(seed, "advice", name, int(place))) for place in found.places[some]]
        cache = sample.cache if transform.base_facts == evaluation_facts else None
        batches = read_draws(
            sample.split, transform, draws, ReadOptions(BATCH_SIZE, setup.workers), cache=cache
        )
        parts = []
        for batch in batches:
            parts.append(extract(batch.images.to(setup.compute.device)))
            done += len(batch.indices)
            progress("augmented", done, total)
        copies = [torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True)]
        tried[name] = compare_copies(originals, copies, mirrored=name in MIRRORING)
    return tried
