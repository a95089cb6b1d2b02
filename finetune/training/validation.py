"""Evaluate the network that a training has reached, and recompute its BatchNorm statistics before."""

import logging

from torch import nn

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.sampling import shuffled
from finetune.data.dataset import Split
from finetune.data.keys import key
from finetune.errors import DataError
from finetune.evaluation.evaluate import Collected, collect_logits
from finetune.evaluation.metrics import Metrics
from finetune.features.cut import inference_form
from finetune.model.batchnorm import recalibrate
from finetune.model.freeze import Freeze
from finetune.training.caching.prefix import FrozenPrefix
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup

log = logging.getLogger("finetune")


def evaluate(setup: Setup, split_name: str, signals: Signals, prefix: FrozenPrefix | None = None) -> Metrics:
    """Compute the metrics of the evaluated network on a split; arguments and errors as :func:`collect`."""
    return collect(setup, split_name, signals, prefix).metrics(setup.card.classes)


def collect(setup: Setup, split_name: str, signals: Signals, prefix: FrozenPrefix | None = None) -> Collected:
    """Compute the logits of the evaluated network for a split, in fp32.

    The evaluated network is the moving average of the weights if the recipe asks for one. It runs in the
    same inference form as in ``finetune eval``, so both report the same numbers.

    Args:
        prefix: the frozen layers of the phase. On val, their features replace the images.

    Raises:
        StoppedError: a signal arrived.
    """
    images = setup.source.splits[split_name]
    if prefix is not None and prefix.serves_val:
        batches, device = prefix.val_batches(signals.check), setup.compute.device
        exact = setup.compute.exact()
        found = collect_logits(prefix.evaluation_suffix, signals.watch(batches), device, exact, images.groups)
    else:
        found = collect_images(setup, images, inference_form(setup.evaluated), signals)
    report_left_out(setup, split_name, found)
    return found


def collect_images(setup: Setup, images: Split, module: nn.Module, signals: Signals) -> Collected:
    """Compute the logits of ``module``, which is in inference form, for images, in fp32.

    Raises:
        StoppedError: a signal arrived.
    """
    batches = eval_batches(
        images,
        setup.card.preprocessing,
        setup.read_options(),
        cache=setup.val_decoded if images is setup.source.splits["val"] else None,
        check=signals.check,
    )
    device, exact = setup.compute.device, setup.compute.exact()
    return collect_logits(module, signals.watch(batches), device, exact, images.groups)


def report_left_out(setup: Setup, split_name: str, collected: Collected) -> None:
    """Warn of the images that could not be read, once for each."""
    for error in collected.bad:
        if error.name not in setup.left_out:
            setup.left_out.add(error.name)
            log.warning("left out of %s: %s", split_name, error)


def recalibrate_batchnorm(setup: Setup, freeze: Freeze, epoch: int, signals: Signals) -> None:
    """Recompute the BatchNorm statistics of the evaluated network from training images, in fp32.

    Uses ``model.batchnorm_recalibrate`` images, preprocessed as in evaluation; the seed and the epoch alone
    decide which. Does nothing if the recipe does not ask for it or if every BatchNorm is frozen. Only whole
    batches are used, so that every image counts the same, unless there is no whole batch.

    Raises:
        DataError: fewer than two images can be read.
    """
    wanted, paths = setup.recipe.model.batchnorm_recalibrate, freeze.moving_batchnorms
    if wanted is None or not paths:
        return
    train = setup.source.splits["train"]
    size = setup.recipe.train.images_per_batch
    count = min(wanted, len(train))
    count -= count % size if count > size else 0
    order = shuffled(len(train), key(setup.recipe.seed, "recalibrate"), epoch)
    batches = eval_batches(
        train.subset(order[:count]),
        setup.card.preprocessing,
        setup.read_options(max(size, 2)),
        check=signals.check,
    )
    images = (batch.images.to(setup.compute.device, non_blocking=True) for batch in signals.watch(batches))
    with setup.compute.exact():
        used = recalibrate(setup.evaluated, paths, images)
    if not used:
        raise DataError("model.batchnorm_recalibrate needs at least two training images that can be read")
