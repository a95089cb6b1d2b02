"""The images that excite the channels of a layer most, found in one pass, and which channels to show.

After Zeiler and Fergus 2014 and Yosinski et al. 2015: a channel is described by the images, and the places in
them, where it takes its highest values.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.features.softmax import Targets


@dataclass(frozen=True)
class Peak:
    """The highest value of a channel in one image.

    Attributes:
        image: the number of the image in its split.
        row, column: the place in the map.
    """

    image: int
    row: int
    column: int
    value: float


class TopImages:
    """Collects, for every channel of a map, the ``count`` images with the highest values.

    Memory depends on the number of channels, not on the number of images. Of equal values, the image that
    came first counts as higher, and of equal places the first.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._values = torch.empty(0, 0)
        self._images = self._places = torch.empty(0, 0, dtype=torch.long)
        self._width = 1
        self._seen = 0
        self._sum = self._squares = torch.zeros(0, dtype=torch.double)

    def add(self, as_map: Tensor, images: Sequence[int]) -> None:
        """Add the map ``(N, C, H, W)`` of N images with their numbers."""
        highest, places = as_map.flatten(2).max(2)
        values, places = highest.cpu().T.float(), places.cpu().T
        numbers = torch.tensor(images, dtype=torch.long).expand_as(places)
        if not self._seen:
            channels = len(values)
            self._width = as_map.shape[3]
            self._values = torch.empty(channels, 0)
            self._images = self._places = torch.empty(channels, 0, dtype=torch.long)
            self._sum = self._squares = torch.zeros(channels, dtype=torch.double)
        self._seen += len(images)
        self._sum = self._sum + values.double().sum(1)
        self._squares = self._squares + values.double().square().sum(1)
        values = torch.cat([self._values, values], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self._count]
        self._values = values.gather(1, order)
        self._images = torch.cat([self._images, numbers], 1).gather(1, order)
        self._places = torch.cat([self._places, places], 1).gather(1, order)

    @property
    def count(self) -> int:
        """The number of images that were added."""
        return self._seen

    def peaks(self, channel: int) -> list[Peak]:
        """The peaks of a channel, the highest first."""
        rows = (self._images[channel], self._places[channel], self._values[channel])
        return [
            Peak(int(image), int(place) // self._width, int(place) % self._width, float(value))
            for image, place, value in zip(*rows, strict=True)
        ]

    def scores(self) -> Tensor:
        """How far the mean of the highest values of each channel stands out, (C,): :meth:`standing`."""
        return self.standing(self._values.double().mean(1))

    def standing(self, values: Tensor) -> Tensor:
        """The values (C,) less the mean of all images' highest values, in standard deviations of these.

        Minus infinity for a channel that is the same in all images.
        """
        mean = self._sum / self._seen
        deviation = (self._squares / self._seen - mean.square()).clamp(min=0).sqrt()
        # What rounding leaves of a constant.
        constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-12)
        found = (values.double() - mean) / deviation
        return torch.where(constant | ~found.isfinite(), -torch.inf, found)


def choose_channels(
    states: Sequence[TopImages], examples: Sequence[Tensor], targets: Targets, count: int
) -> list[int]:
    """Choose ``count`` channels to show, by a rule: those that stand out most, spread over the classes.

    A channel stands out by its mean score in all ``states``, so that neither the network before training nor
    the one after is favoured. It belongs to the class of most of its highest images. Channels are taken one
    after another, each from the classes that were taken least so far. These come later: channels of which at
    least half of the images are shown already; then channels that the example excites less than an average
    image does, in one of the states; last, constant channels.

    Args:
        states: the same layer before and after training, or one of them.
        examples: the highest value of each channel on the example image (C,), for each state.
        targets: the classes of the images.

    Returns:
        Channels from 0; all of them if there are no more than ``count``.
    """
    scores = torch.stack([each.scores() for each in states]).mean(0)
    excess = torch.stack([each.standing(its) for each, its in zip(states, examples, strict=True)]).amin(0)
    groups = torch.where(scores == -torch.inf, 2, torch.where(excess < 0, 1, 0)).tolist()
    order = sorted(range(len(groups)), key=lambda each: (groups[each], -float(scores[each])))
    # More than enough to choose from.
    candidates = order[: max(50 * count, 200)]
    places = {channel: place for place, channel in enumerate(candidates)}
    images: dict[int, set[int]] = {}
    classes: dict[int, int] = {}
    for channel in candidates:
        peaks = [peak for each in states for peak in each.peaks(channel)]
        images[channel] = {peak.image for peak in peaks}
        classes[channel] = Counter(int(targets[peak.image]) for peak in peaks).most_common(1)[0][0]
    chosen: list[int] = []
    taken, shown = Counter[int](), set[int]()

    def turn(channel: int) -> tuple[int, bool, int, int]:
        repeats = 2 * len(images[channel] & shown) >= len(images[channel])
        return groups[channel], repeats, taken[classes[channel]], places[channel]

    while len(chosen) < min(count, len(candidates)):
        best = min((each for each in candidates if each not in chosen), key=turn)
        chosen.append(best)
        taken[classes[best]] += 1
        shown |= images[best]
    return chosen
