"""Drawn images: a small synthetic data set for trial runs and tests."""

import colorsys
import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from finetune.data.dataset import Source, Split
from finetune.data.images import ArrayImages
from finetune.data.keys import key


def draw_source(num_classes: int = 3, per_class: int = 8, size: int = 64, seed: int = 0) -> Source:
    """Draw a data set in which each class has a colour and a shape, at random positions and sizes.

    Train has ``per_class`` images of ``size`` x ``size`` pixels per class; val and test have half as many
    each, at least two. The same arguments give the same pixels.
    """
    classes = tuple(f"drawn_{number}" for number in range(num_classes))
    splits = {}
    for split, count in (
        ("train", per_class),
        ("val", max(2, per_class // 2)),
        ("test", max(2, per_class // 2)),
    ):
        pixels = np.stack(
            [
                np.asarray(_drawn(label, num_classes, size, key(seed, split, label, number)))
                for label in range(num_classes)
                for number in range(count)
            ]
        )
        targets = np.repeat(np.arange(num_classes, dtype=np.int64), count)
        splits[split] = Split(ArrayImages(pixels, f"drawn/{split}"), targets)
    return Source("drawn images", classes, splits)


def with_paired_groups(source: Source) -> Source:
    """``source`` with each two consecutive images as a group, for trial runs of recipes with groups."""
    splits, first_group = {}, 0
    for name, split in source.splits.items():
        splits[name] = dataclasses.replace(
            split, groups=first_group + np.arange(len(split), dtype=np.int64) // 2
        )
        first_group += len(split)
    return dataclasses.replace(source, splits=splits)


def _drawn(label: int, num_classes: int, size: int, draw_key: int) -> Image.Image:
    rng = np.random.Generator(np.random.PCG64(draw_key))
    background = tuple(int(value) for value in rng.integers(200, 256, 3))
    image = Image.new("RGB", (size, size), background)
    red, green, blue = colorsys.hsv_to_rgb(label / num_classes, 0.9, 0.7)
    side = float(rng.uniform(0.4, 0.7)) * size
    left, top = (float(value) * (size - side) for value in rng.uniform(0.0, 1.0, 2))
    colour = (round(255 * red), round(255 * green), round(255 * blue))
    pen = ImageDraw.Draw(image)
    if label % 3 == 0:
        pen.ellipse((left, top, left + side, top + side), fill=colour)
    else:
        circle = (left + side / 2, top + side / 2, side / 2)
        pen.regular_polygon(circle, n_sides=5 - label % 3, rotation=int(rng.integers(0, 90)), fill=colour)
    return image
