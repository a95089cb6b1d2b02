"""Reads batches, in this process or in loader processes."""

import contextlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from finetune.data.batches.batch import NewlyDecoded, PixelBatch
from finetune.data.batches.options import OnBadImage, ReadOptions
from finetune.data.batches.sampling import Draw
from finetune.data.cache.decoded import CacheEntry, DecodedCache
from finetune.data.dataset import Split
from finetune.data.machine import cores
from finetune.data.processes.pool import Check, ProcessPool, Wording, do_nothing
from finetune.data.processes.worker import Heartbeat, in_worker
from finetune.errors import BadImageError
from finetune.image.decode import suppress_warnings
from finetune.image.pixels import Pixels
from finetune.image.transforms import Transform


class ReadRequest(NamedTuple):
    """An image that a reader is to read.

    Attributes:
        image: its index in the split.
        key: of its augmentation.
        stamp: under which the cache stores the image; None if it is not to be cached.
        entry: where the cache has it; None if it does not.
    """

    image: int
    key: int
    stamp: bytes | None = None
    entry: CacheEntry | None = None


# The base of an image, or the reason why there is none, and whether it was decoded just now.
Base = tuple[ReadRequest, Pixels | BadImageError, bool]

# Images per thread that are decoded, or waiting to be. A decoded image takes more memory than its file.
AHEAD = 2
# Bytes. Smaller files are decoded faster than a thread can take them over.
LARGE_FILE = 100_000


class Reader:
    """Reads and transforms one batch at a time, in any process.

    Images that cannot be read are in :attr:`PixelBatch.bad`. They are no error here, since the caller may
    skip them.
    """

    def __init__(self, split: Split, transform: Transform, cache: DecodedCache | None = None) -> None:
        self.split = split
        self.transform = transform
        self.cache = cache

    def requests(self, draws: Sequence[Draw]) -> list[ReadRequest]:
        """A request for each draw, with its cache entry, or the stamp under which to cache it."""
        if self.cache is None:
            return [ReadRequest(*draw) for draw in draws]
        requests = []
        for draw in draws:
            stamp = self.split.stamp(draw[0])
            entry = None if stamp is None else self.cache.find(stamp)
            requests.append(ReadRequest(*draw, stamp if entry or self.cache.takes_more else None, entry))
        return requests

    def read(self, requests: list[ReadRequest], heartbeat: Heartbeat = do_nothing) -> PixelBatch:
        """Read the batch of ``requests``; call ``heartbeat`` after each image."""
        preprocessing = self.transform.preprocessing
        side, depth = preprocessing.image_size, preprocessing.depth
        pixels = np.empty((len(requests), side, side, depth), dtype=np.uint8)
        indices: list[int] = []
        erased, decoded, bad = [], [], []
        for request, base, is_new in self._bases(requests):
            heartbeat()
            if isinstance(base, BadImageError):
                bad.append(base)
                continue
            if is_new and request.stamp is not None:
                decoded.append(NewlyDecoded(request.stamp, base, request.entry))
            view = self.transform.view(base, request.key)
            pixels[len(indices)] = view.pixels
            if view.erased is not None:
                erased.append((len(indices), view.erased))
            indices.append(request.image)
        labels = torch.from_numpy(self.split.targets[np.asarray(indices, dtype=np.int64)])
        read = torch.from_numpy(pixels[: len(indices)])
        return PixelBatch(read, labels, tuple(indices), tuple(erased), tuple(decoded), tuple(bad))

    def _bases(self, requests: list[ReadRequest]) -> Iterator[Base]:
        """Yield the base of each request.

        A loader process decodes on one core. In the training process the other cores are idle until the
        batch is complete, so threads decode large images. Only this thread draws views.
        """
        alone = in_worker() or not self.split.thread_safe or not self._are_large(requests)
        count = 1 if alone else cores()
        if count == 1:
            yield from map(self._base, requests)
            return
        waiting: deque[Future[Base]] = deque()
        with suppress_warnings(), ThreadPoolExecutor(count) as pool:
            for request in requests:
                waiting.append(pool.submit(self._base, request))
                if len(waiting) > AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _are_large(self, requests: list[ReadRequest]) -> bool:
        """Whether the files that are not cached are large on average."""
        uncached = [request for request in requests if request.entry is None]
        nbytes = 0
        for request in uncached:
            with contextlib.suppress(OSError, ValueError):
                nbytes += os.path.getsize(self.split.name(request.image))  # noqa: PTH202
        return nbytes > LARGE_FILE * len(uncached)

    def _base(self, request: ReadRequest) -> Base:
        if self.cache is not None and request.entry is not None:
            cached = self.cache.read(request.entry)
            if cached is not None:
                return request, cached, False
        return request, self._decoded(request), True

    def _decoded(self, request: ReadRequest) -> Pixels | BadImageError:
        transform = self.transform
        try:
            image = self.split.image(request.image, transform.preprocessing.bands, transform.shorter)
            return transform.base(image)
        except BadImageError as error:
            return error


def loader_processes(reader: Reader, options: ReadOptions) -> ProcessPool[list[ReadRequest], PixelBatch]:
    """Loader processes that run ``reader``. With 0 workers, this process reads."""
    return ProcessPool(
        reader.read,
        options.workers,
        Wording(
            "a loader process",
            "data.workers: 0 does without loader processes. A run that ended continues with --resume.",
        ),
        # The network needs the other cores.
        prepare=partial(torch.set_num_threads, 1),
        finish=PixelBatch.pin_memory if options.device.type == "cuda" else None,
    )


def read_batches(
    reader: Reader,
    pool: ProcessPool[list[ReadRequest], PixelBatch],
    draws: Iterable[Sequence[Draw]],
    on_bad_image: OnBadImage,
    check: Check = do_nothing,
) -> Generator[PixelBatch]:
    """Read the batches of ``draws``, and add newly decoded images to the cache of ``reader``.

    ``pool`` are the loader processes of ``reader``.

    Raises:
        BadImageError: an image cannot be read, and ``on_bad_image`` is "error".
        FinetuneError: a loader process died or hangs.
    """
    for batch in pool.results(map(reader.requests, draws), check):
        if batch.bad and on_bad_image == "error":
            # A copy. The traceback of the original would hold this frame, and with it the processes.
            raise BadImageError(batch.bad[0].name, batch.bad[0].reason)
        if reader.cache is not None:
            for new in batch.newly_decoded:
                reader.cache.add(*new)
        yield batch
