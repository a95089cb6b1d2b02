"""The networks whose layers are shown, and the images that they are shown with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from finetune.data.batches.options import OnBadImage
from finetune.data.dataset import Source, Split
from finetune.data.keys import key
from finetune.data.sources.header_checks import has_own_bands
from finetune.errors import DataError, printable
from finetune.image.bands import open_image
from finetune.image.pixels import ImageOrBands, Pixels
from finetune.image.preprocessing import Preprocessing
from finetune.model.build import build
from finetune.model.layers.table import LayerTable
from finetune.recipe.load import minimal_recipe
from finetune.training.compute.precision import place
from finetune.training.movement import movement_between, start_network
from finetune.training.run.own_data import RecordedData
from finetune.training.setup.prepare import load_data, resolve_preprocessing
from finetune.training.trained import load_trained


@dataclass(frozen=True)
class State:
    """A network at one time, in eval mode on its device.

    Attributes:
        title: a word or two, such as before or after.
        weights: where they come from, in words.
    """

    title: str
    weights: str
    module: nn.Module


@dataclass(frozen=True)
class Subject:
    """One network, before and after fine-tuning or in one state, and images.

    Attributes:
        name: of the backbone.
        about: what it was trained on or is shown, for the title.
        states: one, or before and after.
        source: the images, with the splits train and perhaps val.
        on_bad_image: what to do about images that cannot be read: error or skip.
        moved: how far each layer moved between the states, by number; see
            :class:`finetune.training.movement.Movement`. Empty for one state.
    """

    name: str
    about: str
    states: tuple[State, ...]
    table: LayerTable
    preprocessing: Preprocessing
    source: Source
    on_bad_image: OnBadImage
    moved: Mapping[int, float | None]

    @property
    def device(self) -> torch.device:
        """The device of all states."""
        return next(self.states[0].module.parameters()).device

    def sample(self, count: int) -> Split:
        """At most ``count`` images of train, as many of each class as there are. Always the same ones."""
        train = self.source.splits["train"]
        order = np.random.default_rng(key(0, "layers")).permutation(len(train))
        # The number of each image among those of its class.
        rank = np.empty(len(train), dtype=np.int64)
        for target in np.unique(train.targets):
            own = order[train.targets[order] == target]
            rank[own] = np.arange(len(own))
        turn = sorted(order.tolist(), key=lambda image: int(rank[image]))
        return train.subset(sorted(turn[:count]))

    def seen(self, split: Split, index: int) -> Pixels:
        """Image ``index`` after resize and crop: uint8 (S, S, 3 or bands).

        Raises:
            BadImageError: it cannot be read.
        """
        return self._seen(split.image(index, self.preprocessing.bands))

    def example(self, path: Path | None) -> tuple[str, Pixels]:
        """The image at ``path``, or the first of val (of train without one), with its name.

        Raises:
            BadImageError: it cannot be read.
        """
        if path is not None:
            return path.name, self._seen(open_image(path, self.preprocessing.bands))
        name = "val" if len(self.source.splits.get("val", ())) else "train"
        split = self.source.splits[name]
        return f"{Path(split.name(0)).name}, the first of {name}", self.seen(split, 0)

    def _seen(self, image: ImageOrBands) -> Pixels:
        return np.asarray(self.preprocessing.geometry(image))

    def in_colours(self, pixels: Pixels) -> Pixels:
        """Pixels (height, width, 3 or bands) as RGB, as the networks see them.

        Grey if they take one channel; of more than three bands, the first three.
        """
        seen = self.preprocessing.colours(pixels)
        return np.repeat(seen, 3, axis=2) if seen.shape[2] == 1 else seen[:, :, :3]


def subject_of_run(
    run: Path,
    which: Literal["best", "last"] = "best",
    device: torch.device | None = None,
    *,
    data: str | None = None,
) -> Subject:
    """A run's network before and after fine-tuning, and the run's own images.

    Args:
        data: where the images are now; None: where they were, see :meth:`RecordedData.places`.

    Raises:
        RunDirError: there is no run or no checkpoint, or its start cannot be rebuilt.
        CheckpointError: the checkpoint is damaged.
        DataError: its images are not found.
    """
    trained = load_trained(run, which)
    recipe, card = trained.recipe, trained.card
    begin = start_network(trained)
    moved = {each.number: each.moved for each in movement_between(begin, trained.module)}
    for module in (begin.module, trained.module):
        if device is not None:
            place(module, device)
        module.eval()
    recorded = RecordedData.read(run, recipe.data, card.classes)
    # Nothing is measured on the images, so their contents need not be verified.
    if recorded is None:
        section = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
        source = load_data(section, recipe.seed)
    else:
        source = recorded.find(data, verify=()).source
    if not len(source.splits["train"]):
        raise DataError(
            f"{printable(source.name)}: none of the images that {printable(run)} was trained on are there."
        )
    weights = recipe.model.weights
    return Subject(
        recipe.model.backbone,
        f"before and after fine-tuning on {printable(recipe.data.source)}",
        (
            State("before", _in_words(weights), begin.module),
            State("after", f"{printable(run)}, {which} checkpoint", trained.module),
        ),
        begin.table,
        card.preprocessing,
        source,
        recipe.data.on_bad_image,
        moved,
    )


def subject_of_backbone(
    name: str, data: str, weights: str = "default", device: torch.device | None = None
) -> Subject:
    """A backbone before any fine-tuning, and images of a source.

    Args:
        data: the images, as ``data.source`` names them.
        weights: as ``model.weights``.

    Raises:
        UserError: an unknown backbone.
        WeightsError: the weights cannot be loaded.
        DataError: the images cannot be used.
    """
    recipe = minimal_recipe(data, name, weights, name="explain")
    source = load_data(recipe.data, recipe.seed)
    bands = has_own_bands(source.splits["train"], recipe.model.in_channels)
    network = build(recipe.model, len(source.classes), seed=recipe.seed)
    if network.weights is not None:
        network.weights.log()
    preprocessing = resolve_preprocessing(recipe.data, network.input_spec, "bands" if bands else "colours")
    if device is not None:
        place(network.module, device)
    return Subject(
        name,
        f"before fine-tuning, on {printable(data)}",
        (State("untrained" if weights == "none" else "before", _in_words(weights), network.module.eval()),),
        network.table,
        preprocessing,
        source,
        recipe.data.on_bad_image,
        {},
    )


def _in_words(weights: object) -> str:
    if weights == "none":
        return "random weights"
    return "default weights" if weights == "default" else f"weights {printable(str(weights))}"
