"""Reading batches, here or in loader processes."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from finetune.data.batches.batch import Fresh, PixelBatch
from finetune.data.cache.decoded import Decoded, Place
from finetune.data.machine import cores
from finetune.data.processes import Alive, Processes, nothing, serving
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, require_known
from finetune.image.decode import quiet
from finetune.image.threes import Pixels
from finetune.image.transforms import Transform

OnBadImage = Literal["error", "skip"]
# An image's place in the split, and the key of its augmentation.
Draw = tuple[int, int]


class Order(NamedTuple):
    """One image that a reader is asked for: a :data:`Draw`, and what is known of where it is kept.

    ``stamp`` is what it goes by there; None: it is not to be kept. ``place`` is where it was found.
    """

    image: int
    key: int
    stamp: bytes | None = None
    place: Place | None = None


MOST_WORKERS = 8
# So many images for each thread are decoded or waiting to be, in which form they take more memory.
AHEAD = 2
# In bytes. Smaller images are decoded in less time than threads take to hand them over.
LARGE_FILE = 100_000


def default_workers() -> int:
    """What ``workers: auto`` means here: none on up to two cores, else the cores minus two, at most 8."""
    usable = cores()
    return 0 if usable <= 2 else min(usable - 2, MOST_WORKERS)


class Reader:
    """Reads and transforms one batch at a time, in whichever process.

    What cannot be read is in :attr:`PixelBatch.bad`, and no error, since it may be left out.
    """

    def __init__(self, split: Split, transform: Transform, decoded: Decoded | None = None) -> None:
        self.split = split
        self.transform = transform
        self.decoded = decoded

    def read(self, orders: list[Order], alive: Alive = nothing) -> PixelBatch:
        """The batch of ``orders``; ``alive`` is called after each image."""
        preprocessing = self.transform.preprocessing
        side, depth = preprocessing.image_size, preprocessing.depth
        pixels = np.empty((len(orders), side, side, depth), dtype=np.uint8)
        indices: list[int] = []
        erased, fresh, bad = [], [], []
        for order, base, is_fresh in self._bases(orders):
            alive()
            if isinstance(base, BadImageError):
                bad.append(base)
                continue
            if is_fresh and order.stamp is not None:
                fresh.append((order.stamp, base, order.place))
            look = self.transform.view(base, order.key)
            pixels[len(indices)] = look.pixels
            if look.erased is not None:
                erased.append((len(indices), look.erased))
            indices.append(order.image)
        labels = torch.from_numpy(self.split.targets[np.asarray(indices, dtype=np.int64)])
        read = torch.from_numpy(pixels[: len(indices)])
        kept = Fresh.of(fresh) if fresh else None
        return PixelBatch(read, labels, tuple(indices), tuple(erased), kept, tuple(bad))

    def _bases(self, orders: list[Order]) -> Iterator[tuple[Order, Pixels | BadImageError, bool]]:
        """For each order, in turn, the base or why there is none, and whether it was decoded just now.

        In a process of its own a reader decodes alone. In the one that trains, whose other cores have nothing
        to do until the batch is there, threads decode large images, a few ahead. Looks are drawn by one
        thread only.
        """
        alone = serving() or not self.split.in_threads or not self._large(orders)
        count = 1 if alone else cores()
        if count == 1:
            for order in orders:
                kept = self._kept(order)
                yield order, self._decoded(order) if kept is None else kept, kept is None
            return
        waiting: deque[tuple[Order, Pixels | Future[Pixels | BadImageError]]] = deque()
        with quiet(), ThreadPoolExecutor(count) as pool:
            for place, order in enumerate(orders):
                kept = self._kept(order)
                waiting.append((order, pool.submit(self._decoded, order) if kept is None else kept))
                if place >= AHEAD * count:
                    yield _ended(*waiting.popleft())
            while waiting:
                yield _ended(*waiting.popleft())

    def _large(self, orders: list[Order]) -> bool:
        """Whether what is still to be decoded is large files, on average."""
        unkept = [order for order in orders if order.place is None]
        nbytes = 0
        for order in unkept:
            with contextlib.suppress(OSError, ValueError):
                nbytes += os.path.getsize(self.split.name(order.image))  # noqa: PTH202
        return nbytes > LARGE_FILE * len(unkept)

    def _decoded(self, order: Order) -> Pixels | BadImageError:
        try:
            transform = self.transform
            bands = transform.preprocessing.bands
            return transform.base(self.split.image(order.image, bands, transform.shorter))
        except BadImageError as error:
            return error

    def _kept(self, order: Order) -> Pixels | None:
        if self.decoded is None or order.place is None:
            return None
        return self.decoded.read(order.place)


def _ended(
    order: Order, base: "Pixels | Future[Pixels | BadImageError]"
) -> tuple[Order, Pixels | BadImageError, bool]:
    return (order, base.result(), True) if isinstance(base, Future) else (order, base, False)


def batch_processes(reader: Reader, workers: int, *, pin_memory: bool) -> Processes[list[Order], PixelBatch]:
    """Loader processes that read the batches they are asked for; with 0 ``workers`` this one reads."""
    return Processes(
        reader.read,
        workers,
        called="a loader process",
        remedy="With data.workers: 0 there are none; a run that ended goes on with --resume.",
        prepare=_leave_the_cores,
        finish=PixelBatch.pin_memory if pin_memory else None,
    )


def running(
    processes: Processes[list[Order], PixelBatch],
    agenda: Iterable[list[Order]],
    on_bad_image: OnBadImage,
    check: Callable[[], None] = nothing,
) -> Generator[PixelBatch]:
    """What ``processes`` read, batch by batch, of ``agenda``. ``check`` may end a wait by raising.

    Raises:
        BadImageError: an image cannot be read and ``on_bad_image`` is error.
        FinetuneError: a loader process died or stands still, or an unknown ``on_bad_image``.
    """
    require_known("on_bad_image", on_bad_image, get_args(OnBadImage))
    for batch in processes.answers(agenda, check):
        if batch.bad and on_bad_image == "error":
            # A new one: an error that this frame also refers to would keep the frame alive.
            raise BadImageError(batch.bad[0].name, batch.bad[0].reason)
        yield batch


def _leave_the_cores() -> None:
    """To the network."""
    torch.set_num_threads(1)
