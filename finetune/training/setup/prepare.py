"""Build the objects that a recipe describes: images, network, transform and loader."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from finetune.checkpoint.card import ModelCard
from finetune.data.batches.loaders import TrainLoader
from finetune.data.batches.mixing import mixer_for
from finetune.data.batches.options import ReadOptions, default_workers
from finetune.data.batches.sampling import Sampling
from finetune.data.cache.decoded import DecodedCache
from finetune.data.dataset import Source, SourceOptions
from finetune.data.holdout.folds import fold_source
from finetune.data.holdout.groups import assign_groups
from finetune.data.holdout.splits import hold_out_splits
from finetune.data.sources.header_checks import has_own_bands
from finetune.data.sources.read import read_source
from finetune.errors import UserError
from finetune.image.preprocessing import Preprocessing, Reads
from finetune.image.transforms import TrainTransform
from finetune.model.build import Network, build
from finetune.recipe.schema import DataSection, Recipe
from finetune.training.compute.batch_size import resolve_batch_size
from finetune.training.compute.precision import Compute, place
from finetune.training.setup.loss import loss_function
from finetune.training.steps.ema import moving_average


@dataclass
class Setup:
    """The objects that a recipe describes.

    Attributes:
        recipe: with the batch size and the preprocessing filled in.
        workers: the number of processes that read images.
        ema: the moving average of the network, if the recipe asks for one.
        start: the body's weights before the run, by name; only for ``train.l2_sp``.
        left_out: the unreadable images of val and test that were reported.
        val_decoded: the cache of val's images, resized and cropped, if there is one.
        cache_folders: the folders that cache decoded images, with their sizes in bytes.
    """

    recipe: Recipe
    source: Source
    network: Network
    card: ModelCard
    loader: TrainLoader
    criterion: nn.CrossEntropyLoss
    compute: Compute
    workers: int
    ema: AveragedModel | None
    start: dict[str, Tensor] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    val_decoded: DecodedCache | None = None
    cache_folders: dict[Path, int] = field(default_factory=dict)

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of one image as the network sees it."""
        size = self.card.preprocessing.image_size
        return self.card.preprocessing.channels, size, size

    def read_options(self, batch_size: int | None = None) -> ReadOptions:
        """The options for reading images in evaluation, by default in batches of the training size."""
        data, size = self.recipe.data, batch_size or self.recipe.train.images_per_batch
        return ReadOptions(size, self.workers, data.on_bad_image, self.compute.device)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read images while active; afterwards no loader process is left, also on an error."""
        try:
            yield
        finally:
            self.loader.close()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated: the moving average if there is one."""
        return self.ema.module if self.ema is not None else self.network.module


def reading_of(data: DataSection) -> SourceOptions:
    """The options of the recipe for reading its source."""
    by_column = data.group_by is not None and "(" not in data.group_by
    return SourceOptions(
        as_classes=data.layout == "classes",
        split_column=data.split_column,
        group_column=data.group_by if by_column else None,
    )


def load_data(data: DataSection, seed: int) -> Source:
    """Read the recipe's source and split it for training, into its fold if the recipe names one.

    ``seed`` is the recipe's; ``data.split_seed`` overrides it.

    Raises:
        DataError: the source cannot be read or split.
    """
    source = read_source(data.source, reading_of(data))
    if data.group_by is not None:
        source = assign_groups(source, data.source, data.group_by)
    if data.split_seed != "auto":
        seed = data.split_seed
    if data.fold is not None:
        source = fold_source(source, data.fold.number, data.fold.of, seed)
    return hold_out_splits(
        source, val_fraction=data.val_fraction, test_fraction=data.test_fraction, seed=seed
    )


def prepare(recipe: Recipe, source: Source, compute: Compute, *, quiet: bool = False) -> Setup:
    """Build everything that ``recipe`` describes, on a source that is read and split.

    ``quiet`` logs no remarks on the weights: another setup of the same run did.

    Raises:
        RecipeError: ``train.class_weights`` names classes that the data does not have.
        DataError: the number of bands per image is not ``model.in_channels``.
        UserError: impossible weights, freeze, sizes or augmentation.
        NoMemoryError: ``batch_size: auto``, and not even two images fit.
    """
    data = recipe.data
    criterion = loss_function(recipe.train, source.splits["train"], source.classes)
    skips = data.on_bad_image == "skip"
    own_bands = has_own_bands(source.splits["train"], recipe.model.in_channels, skips=skips)
    network = build(
        recipe.model,
        len(source.classes),
        seed=recipe.seed,
        image_size=None if data.image_size == "auto" else data.image_size,
        classes=source.classes,
    )
    if network.weights is not None and not quiet:
        network.weights.log()
    preprocessing = resolve_preprocessing(data, network.input_spec, "bands" if own_bands else "colours")
    place(network.module, compute.device, compute.memory_format)
    image = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    train = resolve_batch_size(recipe.train, network, image, compute, recipe.model.batchnorm)
    recipe = recipe.model_copy(update={"train": train})
    return Setup(
        recipe=with_preprocessing(recipe, preprocessing),
        source=source,
        network=network,
        card=ModelCard(network.architecture, source.classes, preprocessing),
        loader=make_loader(recipe, source, preprocessing, compute),
        criterion=criterion.to(compute.device),
        compute=compute,
        workers=_workers(data),
        ema=moving_average(network.module, train.ema) if train.ema is not None else None,
        start={} if train.l2_sp is None else _body_weights(network),
    )


def make_loader(
    recipe: Recipe, source: Source, preprocessing: Preprocessing, compute: Compute
) -> TrainLoader:
    """Build the loader of the training images; ``recipe`` has its batch size filled in."""
    data, train = recipe.data, recipe.train
    return TrainLoader(
        source.splits["train"],
        TrainTransform(train.augment, preprocessing, data.decode),
        ReadOptions(train.images_per_batch, _workers(data), data.on_bad_image, compute.device),
        Sampling(recipe.seed, train.sampler, train.augment.views),
        mixer_for(train.augment, len(source.classes)),
    )


def _workers(data: DataSection) -> int:
    return default_workers() if data.workers == "auto" else data.workers


def _body_weights(network: Network) -> dict[str, Tensor]:
    names = [name for layer in network.table.body for name in layer.parameters]
    return {name: network.module.get_parameter(name).detach().clone() for name in names}


def resolve_preprocessing(data: DataSection, spec: Preprocessing, reads: Reads = "colours") -> Preprocessing:
    """Resolve the evaluation transform: that of the weights, unless the recipe says otherwise.

    Another ``image_size`` keeps the proportion between resize and crop. With ``pad`` nothing is cropped.

    Raises:
        UserError: with ``pad``, the image would not fit the square.
    """
    size = spec.image_size if data.image_size == "auto" else data.image_size
    mode = spec.resize_mode if data.resize_mode == "auto" else data.resize_mode
    resize = size if mode == "pad" else round(size * spec.resize / spec.image_size)
    if data.resize != "auto":
        resize = data.resize
    if mode == "pad" and resize > size:
        raise UserError(
            f"data.resize: resize_mode: pad shows the whole image, so this can be at most the {size} px "
            f"that the network sees; it is {resize}. Leave it out."
        )
    return Preprocessing(
        image_size=size,
        resize=resize,
        resize_mode=mode,
        interpolation=spec.interpolation if data.interpolation == "auto" else data.interpolation,
        mean=spec.mean,
        std=spec.std,
        reads=reads,
    )


def with_preprocessing(recipe: Recipe, preprocessing: Preprocessing) -> Recipe:
    """``recipe`` with the resolved preprocessing in place of each ``auto``."""
    resolved = {
        "image_size": preprocessing.image_size,
        "resize": preprocessing.resize,
        "resize_mode": preprocessing.resize_mode,
        "interpolation": preprocessing.interpolation,
    }
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=resolved)})
