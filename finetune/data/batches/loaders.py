"""Loads batches for training and evaluation. They are bit-identical with any number of loader processes."""

import dataclasses
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise

from finetune.data.batches.batch import Batch, PixelBatch
from finetune.data.batches.changed_files import FileChanges
from finetune.data.batches.mixing import BatchMixer
from finetune.data.batches.normalize import Normalizer
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.reading import Reader, loader_processes, read_batches
from finetune.data.batches.sampling import Draw, Sampling
from finetune.data.cache.decoded import DecodedCache
from finetune.data.dataset import Split
from finetune.data.keys import key
from finetune.data.processes.pool import Check, do_nothing
from finetune.errors import BadImageError, DataError
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform, TrainTransform, Transform

log = logging.getLogger("finetune")


class TrainLoader:
    """Loads the training images, one epoch at a time.

    The last batch of an epoch may be smaller than the others. A last batch of one image joins the batch
    before it, since BatchNorm cannot train on one image.

    All randomness is keyed. The augmentation of image i in epoch e depends on (seed, e, i) and, if the image
    is drawn several times, on the number of the draw; with ``sampling.views``, on e mod views instead of e.
    The order depends on (seed, e), and mixing on (seed, e, number of the batch). So neither the number of
    loader processes nor a resume within an epoch changes a bit.

    With ``on_bad_image: skip``, unreadable images are left out, listed in :attr:`Batch.bad`, and logged once
    each. Batches keep their numbers. If one image of a batch remains, it is left out too.

    Raises:
        DataError: the split is empty.
    """

    def __init__(
        self,
        split: Split,
        transform: TrainTransform,
        options: ReadOptions,
        sampling: Sampling,
        mixer: BatchMixer | None = None,
    ) -> None:
        if not len(split):
            raise DataError("there are no images to train on")
        self.split = split
        self.transform = transform
        self._options = options
        self._sampling = sampling
        self._mixer = mixer
        self._reported: set[str] = set()
        self._reader = Reader(split, transform)
        self._changes = FileChanges(split)
        self._normalize = Normalizer(transform.preprocessing, options.device)
        self._pool = loader_processes(self._reader, options)
        self._running: Generator[PixelBatch] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches, the same in every epoch."""
        return len(self._bounds()) - 1

    def epoch(self, epoch: int, start: int = 0, check: Check = do_nothing) -> Iterator[Batch]:
        """Load the batches of an epoch. A new call ends the epoch before it.

        Args:
            epoch: counted from 0.
            start: number of the first batch. Each batch is the same as in a whole epoch.
            check: called while this process waits for a batch; it may end the wait by raising.

        Raises:
            BadImageError: an image cannot be read, and ``on_bad_image`` is "error".
            DataError: no image can be read.
            FinetuneError: a loader process died or hangs.
        """
        if self._running is not None:
            self._running.close()
        draws = self.draws(epoch, start)
        self._running = read_batches(self._reader, self._pool, draws, self._options.on_bad_image, check)
        count, first_bad = 0, ""
        try:
            for number, batch in enumerate(self._running, start):
                self.report_bad_images(batch.bad)
                self._changes.report(batch.indices)
                count += len(batch.indices)
                first_bad = first_bad or "".join(map(str, batch.bad[:1]))
                yield self._finished(batch, epoch, number)
        except Exception:
            self.close()
            raise
        self._changes.report_total()
        if first_bad and not count and start == 0:
            raise DataError(
                f"none of the {len(self.split)} training images can be read; the first: {first_bad}"
            )

    def draws(self, epoch: int, start: int = 0) -> Iterator[list[Draw]]:
        """The draws of each batch of an epoch, from batch number ``start``."""
        return self._sampling.draws(self.split.targets, epoch, pairwise(self._bounds()[start:]))

    @property
    def cache(self) -> DecodedCache | None:
        """Where decoded images are cached; None: nowhere."""
        return self._reader.cache

    def use_cache(self, cache: DecodedCache | None) -> None:
        """Read decoded images from ``cache`` and add new ones to it. Restarts the loader processes."""
        self.close()
        self._reader.cache = cache

    def report_bad_images(self, bad: Iterable[BadImageError]) -> None:
        """Log images that cannot be read, each once."""
        for error in bad:
            if error.name not in self._reported:
                self._reported.add(error.name)
                log.warning("left out: %s", error)

    def close(self) -> None:
        """End the running epoch and the loader processes. The next epoch starts new processes."""
        if self._running is not None:
            self._running.close()
            self._running = None
        self._pool.close()

    def _finished(self, read: PixelBatch, epoch: int, number: int) -> Batch:
        if len(read.indices) == 1 and read.bad:
            # BatchNorm cannot train on one image. In another epoch, the image is in another batch.
            read = PixelBatch(read.pixels[:0], read.labels[:0], (), bad=read.bad)
        batch = self._normalize(read)
        if self._mixer is None:
            return batch
        mix_key = key(self._sampling.seed, "mix", epoch, number)
        images, targets = self._mixer(batch.images, batch.labels, mix_key)
        return dataclasses.replace(batch, images=images, targets=targets)

    def _bounds(self) -> list[int]:
        count, size = len(self.split), self._options.batch_size
        bounds = [*range(0, count, size), count]
        if size > 1 and len(bounds) > 2 and count % size == 1:
            del bounds[-2]
        return bounds


def eval_batches(
    split: Split,
    preprocessing: Preprocessing,
    options: ReadOptions,
    *,
    cache: DecodedCache | None = None,
    check: Check = do_nothing,
) -> Iterator[Batch]:
    """Load the images of a split in order, preprocessed as for evaluation.

    Args:
        cache: stores the images after resize and crop, for the next call.
        check: called while this process waits for a batch; it may end the wait by raising.

    Raises:
        BadImageError: an image cannot be read, and ``on_bad_image`` is "error".
        FinetuneError: a loader process died or hangs.
    """
    draws = [(index, 0) for index in range(len(split))]
    yield from read_draws(split, EvalTransform(preprocessing), draws, options, cache=cache, check=check)


def read_draws(
    split: Split,
    transform: Transform,
    draws: Sequence[Draw],
    options: ReadOptions,
    *,
    cache: DecodedCache | None = None,
    check: Check = do_nothing,
) -> Iterator[Batch]:
    """Load the images of ``draws`` in order, each with the augmentation of its key.

    ``cache`` and ``check`` are as in :func:`eval_batches`, and so are the errors raised.
    """
    size = options.batch_size
    batches = [draws[start : start + size] for start in range(0, len(draws), size)]
    options = dataclasses.replace(options, workers=min(options.workers, len(batches)))
    normalize = Normalizer(transform.preprocessing, options.device)
    reader = Reader(split, transform, cache)
    with loader_processes(reader, options) as pool:
        yield from map(normalize, read_batches(reader, pool, batches, options.on_bad_image, check))
