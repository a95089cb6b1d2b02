"""What the layers of a network have learned, from the first to the last.

At several depths: channels, the images of the user that excite them most, cropped to what the unit sees, and
their values on one image. The channels are the same before and after fine-tuning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.data.batches.loaders import eval_batches
from finetune.data.batches.options import ReadOptions, default_workers
from finetune.data.dataset import Split
from finetune.errors import DataError, UserError, printable
from finetune.explain.layer_maps import MapLayout, MappedNetwork, map_layouts, mapped_network
from finetune.explain.layers.filters import filters_of, first_convolution
from finetune.explain.layers.subject import Subject
from finetune.explain.layers.units import Peak, TopImages, choose_channels
from finetune.explain.receptive_field.fields import Box, ReceptiveField, receptive_fields
from finetune.features.progress import OnProgress, no_progress
from finetune.image.pixels import Pixels
from finetune.model.layers.table import Layer

# Images that are searched for those that excite a channel, and images per batch.
SEARCHED = 300
BATCH = 32
# In a figure: images per channel, depths by default and at most, channels per depth, filters.
IMAGES_PER_CHANNEL = 4
DEPTHS, MOST_DEPTHS = 5, 6
CHANNELS = {1: 6, 2: 3}
MOST_FILTERS = 64


@dataclass(frozen=True)
class Crop:
    """What a unit sees of an image that excites it.

    Attributes:
        name: of the image.
        pixels: uint8 (height, width, 3).
        cell: the unit's own place, in pixels of the crop: first and last row, first and last column.
        target: the class of the image.
    """

    name: str
    pixels: Pixels
    cell: Box
    target: int


@dataclass(frozen=True)
class Unit:
    """A channel of a layer.

    Attributes:
        channel: from 0.
        crops: for each state, of the images with the highest values, the highest first.
        maps: for each state, its values on the example image, float32 (H, W).
    """

    channel: int
    crops: list[list[Crop]]
    maps: list[NDArray[np.float32]]


@dataclass(frozen=True)
class Depth:
    """A layer, and the units of it that are shown.

    Attributes:
        moved: how far the layer moved from its start; None if there is no start, or it is zero.
    """

    layer: Layer
    layout: MapLayout
    field: ReceptiveField
    moved: float | None
    units: list[Unit]


@dataclass(frozen=True)
class LayerViews:
    """All that the figure shows.

    Attributes:
        searched: the number of images that were searched.
        example: the name of the image whose values are shown, and its pixels, uint8 (S, S, 3).
        filters: for each state, filters of the first convolution (filters, height, width, 3) in 0..1; None if
            the first convolution does not see the image itself.
        all_filters: their number before the largest were chosen.
        bands: the number of bands of the images.
    """

    subject: Subject
    searched: int
    example: tuple[str, Pixels]
    depths: list[Depth]
    filters: list[NDArray[np.float32]] | None
    all_filters: int
    bands: int


def view_layers(
    subject: Subject,
    at: str | None = None,
    image: Path | None = None,
    *,
    progress: OnProgress = no_progress,
) -> LayerViews:
    """Find what the figure shows.

    Args:
        at: layers; see :func:`choose_depths`.
        image: whose values are shown; None: the first of val.
        progress: called with the images done and their total, through all states.

    Raises:
        UserError: an unknown layer, or no layer computes a map.
        BadImageError: an image cannot be read.
        DataError: there are no readable images.
    """
    channels, size = subject.preprocessing.channels, subject.preprocessing.image_size
    module = subject.states[0].module
    layouts = map_layouts(module, subject.table, size, channels)
    numbers = choose_depths(subject, list(layouts), at)
    chosen = {number: layouts[number] for number in numbers}
    name, example = subject.example(image)
    fields = _fields(module, subject, chosen)
    networks = [mapped_network(state.module, subject.table, chosen) for state in subject.states]
    split = subject.sample(SEARCHED)
    tops = _search(subject, networks, split, progress)
    values = [_values(network, subject, example) for network in networks]
    depths, read = [], _Reading(subject, split)
    for index, number in enumerate(numbers):
        states = [each[index] for each in tops]
        units = [
            Unit(
                channel,
                [
                    [read.crop(peak, fields[number], chosen[number]) for peak in each.peaks(channel)]
                    for each in states
                ],
                [each[index][channel] for each in values],
            )
            for channel in choose_channels(
                states,
                [torch.from_numpy(each[index]).amax((1, 2)) for each in values],
                split.targets,
                CHANNELS[len(states)],
            )
        ]
        layer, moved = subject.table.body[number - 1], subject.moved.get(number)
        depths.append(Depth(layer, chosen[number], fields[number], moved, units))
    path = first_convolution(module, channels)
    filters, total = None, 0
    if path is not None:
        _, filters = filters_of([state.module for state in subject.states], path, MOST_FILTERS)
        total = len(module.get_submodule(path).weight)  # type: ignore[arg-type]
    return LayerViews(
        subject, len(split), (name, subject.in_colours(example)), depths, filters, total, channels
    )


def described(views: LayerViews) -> list[dict[str, Any]]:
    """What the figure shows of each layer, JSON-ready.

    ``sees`` is the side of the receptive field in pixels, ``moved`` is None without a start. ``channels`` are
    from 0, each with the names of its images for each state.
    """
    titles = [state.title for state in views.subject.states]
    return [
        {
            "number": depth.layer.number,
            "name": depth.layer.name,
            "map": [depth.layout.channels, depth.layout.height, depth.layout.width],
            "sees": depth.field.size,
            "moved": depth.moved,
            "channels": [
                {"channel": unit.channel}
                | {
                    title: [crop.name for crop in crops]
                    for title, crops in zip(titles, unit.crops, strict=True)
                }
                for unit in depth.units
            ],
        }
        for depth in views.depths
    ]


def choose_depths(subject: Subject, with_maps: Sequence[int], at: str | None) -> list[int]:
    """Choose the layers to show.

    Args:
        with_maps: the numbers of the layers that compute maps.
        at: numbers or names of layers, separated by commas; None: five of ``with_maps``, evenly spaced by
            number, the first and the last among them.

    Raises:
        UserError: an unknown layer, one without a map, or too many.
    """
    body, size = subject.table.body, subject.preprocessing.image_size
    if not with_maps:
        raise UserError(
            f"{subject.name}: no layer computes a map of more than one place from images of {size} px."
        )
    if at is None:
        places = np.linspace(0, len(with_maps) - 1, min(DEPTHS, len(with_maps)))
        return [with_maps[int(place + 0.5)] for place in places]
    numbers = {layer.name: layer.number for layer in body}
    found = set()
    for each in (part.strip() for part in at.split(",")):
        number = numbers.get(each) or (int(each) if each.isdecimal() and each.isascii() else 0)
        if not 1 <= number <= len(body):
            raise UserError(
                f"--at {printable(each)}: {subject.name} has layers 1 to {len(body)} before its head "
                "(`finetune layers`). Give numbers or names, such as --at 1,5,9."
            )
        if number not in with_maps:
            raise UserError(
                f"--at {number}: {body[number - 1].name} computes no map of more than one place from images "
                f"of {size} px. Layers that do: {', '.join(map(str, with_maps))}."
            )
        found.add(number)
    if len(found) > MOST_DEPTHS:
        raise UserError(f"--at: {len(found)} layers; at most {MOST_DEPTHS} fit in one figure.")
    return sorted(found)


def _fields(module: nn.Module, subject: Subject, layouts: dict[int, MapLayout]) -> dict[int, ReceptiveField]:
    size = subject.preprocessing.image_size
    if any(layer.cut is None for layer in subject.table.body):
        # Without a graph, nothing is known of what a place sees.
        return dict.fromkeys(layouts, ReceptiveField(None, None, size))
    points = [layout.point for layout in layouts.values()]
    found = receptive_fields(module, points, size, subject.preprocessing.channels)
    return {number: found[layout.point] for number, layout in layouts.items()}


def _search(
    subject: Subject, networks: Sequence[MappedNetwork], split: Split, progress: OnProgress
) -> list[list[TopImages]]:
    """The highest images of each state, at each depth, from one pass over ``split``."""
    tops = [[TopImages(IMAGES_PER_CHANNEL) for _ in network.numbers] for network in networks]
    # Larger images, fewer of them: the maps of a batch take about as much memory.
    size = max(1, min(BATCH, BATCH * 224**2 // subject.preprocessing.image_size**2))
    options = ReadOptions(size, default_workers(), subject.on_bad_image, subject.device)
    done = 0
    for batch in eval_batches(split, subject.preprocessing, options):
        if batch.indices:
            for network, depths in zip(networks, tops, strict=True):
                with torch.inference_mode():
                    for top, as_map in zip(depths, network.maps(batch.images), strict=True):
                        top.add(as_map, batch.indices)
        done += len(batch.indices) + len(batch.bad)
        progress(done, len(split))
    if not tops[0][0].count:
        raise DataError("none of the images can be read")
    return tops


def _values(network: MappedNetwork, subject: Subject, pixels: Pixels) -> list[NDArray[np.float32]]:
    """The maps (C, H, W) of one image."""
    images = torch.from_numpy(subject.preprocessing.normalize(pixels))[None].to(subject.device)
    with torch.inference_mode():
        return [each[0].float().cpu().numpy() for each in network.maps(images)]


class _Reading:
    """Reads the images of peaks, each once, and crops them."""

    def __init__(self, subject: Subject, split: Split) -> None:
        self._subject, self._split = subject, split
        self._pixels: dict[int, Pixels] = {}

    def crop(self, peak: Peak, field: ReceptiveField, layout: MapLayout) -> Crop:
        if peak.image not in self._pixels:
            seen = self._subject.seen(self._split, peak.image)
            self._pixels[peak.image] = self._subject.in_colours(seen)
        top, bottom, left, right = field.box(peak.row, peak.column)
        # Cells divide the image evenly.
        height, width = field.image_size / layout.height, field.image_size / layout.width
        first, last = round(peak.row * height), round((peak.row + 1) * height)
        start, stop = round(peak.column * width), round((peak.column + 1) * width)
        cell = (first - top, last - top, start - left, stop - left)
        pixels = self._pixels[peak.image][top:bottom, left:right]
        return Crop(self._split.name(peak.image), pixels, cell, int(self._split.targets[peak.image]))
