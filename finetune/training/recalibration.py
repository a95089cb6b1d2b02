"""BatchNorm statistics for the weights that are about to be judged, from training images."""

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import shuffled
from finetune.data.keys import key
from finetune.errors import DataError
from finetune.model.batchnorm import recalibrate
from finetune.model.freeze import Freeze
from finetune.training.run.position import Position
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup


def recalibrate_batchnorm(setup: Setup, freeze: Freeze, position: Position, signals: Signals) -> None:
    """Compute the statistics of the evaluated network (the moving average, where there is one) anew.

    Over ``model.batchnorm_recalibrate`` training images, as evaluation sees them; does nothing where the
    recipe has none, or where no BatchNorm moves. Which images depends on the seed and the epoch alone.
    In fp32, as val. Only whole batches are used, so that each counts the same, unless there is no whole one.

    Raises:
        DataError: no image can be read.
    """
    wanted, paths = setup.recipe.model.batchnorm_recalibrate, freeze.moving_batchnorms
    if wanted is None or not paths:
        return
    train = setup.source.splits["train"]
    size = setup.recipe.train.images_a_batch
    count = min(wanted, len(train))
    count -= count % size if count > size else 0
    order = shuffled(len(train), key(setup.recipe.seed, "recalibrate"), position.epoch)
    batches = eval_batches(
        train.subset(order[:count]),
        setup.card.preprocessing,
        ReadOptions(max(size, 2), setup.workers, setup.recipe.data.on_bad_image, setup.compute.device),
        check=signals.check,
    )
    images = (batch.images.to(setup.compute.device, non_blocking=True) for batch in signals.watch(batches))
    with setup.compute.exact():
        used = recalibrate(setup.evaluated, paths, images)
    if not used:
        raise DataError("model.batchnorm_recalibrate: there are no two training images that can be read")
