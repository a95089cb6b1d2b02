"""Batches: read, transformed and put together, in this process or in others, always the same."""

import dataclasses
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch

from finetune.data.batches.batch import Batch as Batch
from finetune.data.batches.batch import PixelBatch
from finetune.data.batches.changed import Changes
from finetune.data.batches.mixing import BatchMixer
from finetune.data.batches.normalize import Normalizer
from finetune.data.batches.order import balanced, repeats, shuffled
from finetune.data.batches.reading import Draw, OnBadImage, Order, Reader, batch_processes, running
from finetune.data.batches.reading import default_workers as default_workers
from finetune.data.cache.decoded import Decoded
from finetune.data.keys import key
from finetune.data.processes import nothing
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, DataError, require_known
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform, TrainTransform, Transform

log = logging.getLogger("finetune")

CPU = torch.device("cpu")


class TrainLoader:
    """The training images, epoch after epoch.

    ``sampler: shuffle`` takes every image once an epoch; ``balanced`` makes as many draws, every class
    equally often. The last batch may be smaller; one of a single image, on which BatchNorm cannot train,
    joins the batch before it.

    How image i looks in epoch e depends on (seed, e, i) and, where it is drawn several times, the number
    of the draw; with ``views`` on e mod views in place of e. The order depends on (seed, e), the mixing on
    (seed, e, number of the batch). Nothing depends on the number of workers, or on where an epoch is taken
    up.

    ``on_bad_image: skip`` leaves out what cannot be read: it is in :attr:`Batch.bad`, and named in the log
    once. The batches stay as they are numbered. One of which a single image is left is emptied, too.
    """

    def __init__(
        self,
        split: Split,
        transform: TrainTransform,
        *,
        batch_size: int,
        seed: int,
        sampler: Literal["shuffle", "balanced"] = "shuffle",
        views: int | None = None,
        mixer: BatchMixer | None = None,
        workers: int = 0,
        on_bad_image: OnBadImage = "error",
        device: torch.device = CPU,
    ) -> None:
        require_known("sampler", sampler, ("shuffle", "balanced"))
        if not len(split):
            raise DataError("there are no images to train on")
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._sampler = sampler
        self._views = views
        self._mixer = mixer
        self._on_bad_image = on_bad_image
        self._known_bad: set[str] = set()
        self._transform = transform
        self._reader = Reader(split, transform)
        self._changes = Changes(split)
        self._normalize = Normalizer(transform.preprocessing, device)
        self._processes = batch_processes(self._reader, workers, pin_memory=_pinned(device))
        self._running: Generator[PixelBatch] | None = None

    @property
    def split(self) -> Split:
        """The images."""
        return self._split

    @property
    def transform(self) -> TrainTransform:
        """What they go through."""
        return self._transform

    @property
    def batches_per_epoch(self) -> int:
        """The same in every epoch."""
        return len(self._bounds()) - 1

    def epoch(self, epoch: int, start: int = 0, check: Callable[[], None] = nothing) -> Iterator[Batch]:
        """The batches of epoch ``epoch`` (from 0), from number ``start`` on: exactly those that a whole epoch
        has there. One epoch at a time.

        Args:
            check: is called while a batch is waited for, and may end the wait by raising.

        Raises:
            BadImageError: an image cannot be read and ``on_bad_image`` is error.
            DataError: not one image can be read.
            FinetuneError: a loader process died or stands still.
        """
        if self._running is not None:
            self._running.close()
        decoded = self._reader.decoded
        agenda = (_ordered(self._split, draws, decoded) for draws in self.draws(epoch, start))
        self._running = running(self._processes, agenda, self._on_bad_image, check)
        seen, bad = 0, ""
        try:
            for number, batch in enumerate(self._running, start):
                self.tell(batch.bad)
                self._changes.look(batch.indices)
                if batch.fresh is not None and decoded is not None:
                    batch.fresh.keep(decoded)
                seen += len(batch.indices)
                bad = bad or "".join(map(str, batch.bad[:1]))
                yield self._finished(batch, epoch, number)
        except Exception:
            self.close()
            raise
        self._changes.count()
        if bad and not seen and start == 0:
            raise DataError(f"none of the {len(self._split)} training images can be read; the first: {bad}")

    def keep(self, decoded: Decoded | None) -> None:
        """Keep what images are decoded to there, and read them from there. Loader processes start anew."""
        self.close()
        self._reader.decoded = decoded

    def close(self) -> None:
        """End the loader processes, and an epoch that is under way. A further epoch starts new ones."""
        if self._running is not None:
            self._running.close()
            self._running = None
        self._processes.close()

    def _finished(self, read: PixelBatch, epoch: int, number: int) -> Batch:
        if len(read.indices) == 1 and read.bad:
            # BatchNorm cannot train on one image; in another epoch it is in other company.
            read = PixelBatch(read.pixels[:0], read.labels[:0], (), bad=read.bad)
        batch = self._normalize(read)
        if self._mixer is None:
            return batch
        images, targets = self._mixer(batch.images, batch.labels, key(self._seed, "mix", epoch, number))
        return dataclasses.replace(batch, images=images, targets=targets)

    def _bounds(self) -> list[int]:
        count, size = len(self._split), self._batch_size
        bounds = [*range(0, count, size), count]
        if size > 1 and len(bounds) > 2 and count % size == 1:
            del bounds[-2]
        return bounds

    def draws(self, epoch: int, start: int = 0) -> Iterator[list[Draw]]:
        """For each batch of :meth:`epoch` the places of its images, and the keys of their augmentation."""
        targets = self._split.targets
        if self._sampler == "balanced":
            order = balanced(targets, self._seed, epoch)
        else:
            order = shuffled(len(targets), self._seed, epoch)
        view = epoch if self._views is None else epoch % self._views
        again = repeats(order)
        bounds = self._bounds()[start:]
        for first, end in pairwise(bounds):
            draws = zip(order[first:end].tolist(), again[first:end].tolist(), strict=True)
            yield [(i, key(self._seed, "picture", view, i, count)) for i, count in draws]

    def tell(self, bad: Iterable[BadImageError]) -> None:
        """Name images that cannot be read in the log, each once."""
        for error in bad:
            if error.name not in self._known_bad:
                self._known_bad.add(error.name)
                log.warning("left out: %s", error)


def eval_batches(
    split: Split,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    on_bad_image: OnBadImage = "error",
    device: torch.device = CPU,
    decoded: Decoded | None = None,
    check: Callable[[], None] = nothing,
) -> Iterator[Batch]:
    """The images of a split in order, as evaluation sees them.

    With ``on_bad_image: skip``, what cannot be read is left out and in :attr:`Batch.bad`. ``decoded`` keeps
    the images as they are resized and cut out, for the next time. ``check`` is called while a batch is
    waited for, and may end the wait by raising.

    Raises:
        BadImageError: an image cannot be read and ``on_bad_image`` is error.
        FinetuneError: a loader process died or stands still.
    """
    yield from read_draws(
        split,
        EvalTransform(preprocessing),
        [(index, 0) for index in range(len(split))],
        batch_size=batch_size,
        workers=workers,
        on_bad_image=on_bad_image,
        device=device,
        decoded=decoded,
        check=check,
    )


def read_draws(
    split: Split,
    transform: Transform,
    draws: Sequence[Draw],
    *,
    batch_size: int,
    workers: int = 0,
    on_bad_image: OnBadImage = "error",
    device: torch.device = CPU,
    decoded: Decoded | None = None,
    check: Callable[[], None] = nothing,
) -> Iterator[Batch]:
    """The images that ``draws`` names, each with the key of its augmentation, in that order.

    Raises:
        BadImageError, FinetuneError: as :func:`eval_batches`.
    """
    starts = range(0, len(draws), batch_size)
    agenda = (_ordered(split, draws[s : s + batch_size], decoded) for s in starts)
    needed = -(-len(draws) // batch_size)
    reader, normalize = Reader(split, transform, decoded), Normalizer(transform.preprocessing, device)
    with batch_processes(reader, min(workers, needed), pin_memory=_pinned(device)) as processes:
        for batch in running(processes, agenda, on_bad_image, check):
            if batch.fresh is not None and decoded is not None:
                batch.fresh.keep(decoded)
            yield normalize(batch)


def _ordered(split: Split, draws: Iterable[Draw], decoded: Decoded | None) -> list[Order]:
    """What a reader is asked for, each with the place where it is kept, or the stamp to keep it under."""
    if decoded is None:
        return [Order(*draw) for draw in draws]
    orders = []
    for draw in draws:
        stamp = split.stamp(draw[0])
        place = None if stamp is None else decoded.find(stamp)
        orders.append(Order(*draw, stamp if place or decoded.takes_more else None, place))
    return orders


def _pinned(device: torch.device) -> bool:
    return device.type == "cuda"
