"""Reading batches, here or in loader processes; what happens to those processes."""

import contextlib
import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from finetune.data.batches.batch import Fresh, PixelBatch
from finetune.data.cache.decoded import Decoded, Pixels, Place
from finetune.data.machine import cores
from finetune.data.picture.images import quiet
from finetune.data.picture.transforms import Transform
from finetune.data.sources.dataset import Split
from finetune.errors import BadImageError, FinetuneError

OnBadImage = Literal["error", "skip"]
# A picture's place in the split, and the key of its augmentation.
Draw = tuple[int, int]


class Order(NamedTuple):
    """One picture that a reader is asked for: a :data:`Draw`, and what is known of where it is kept.

    ``stamp`` is what it goes by there; None: it is not to be kept. ``place`` is where it was found.
    """

    picture: int
    key: int
    stamp: bytes | None = None
    place: Place | None = None


MOST_WORKERS = 8
# So many pictures for each thread are decoded or waiting to be, in which form they take more memory.
AHEAD = 2
# In bytes. Smaller pictures are decoded in less time than threads take to hand them over.
LARGE_FILE = 100_000
# What it looks like where a loader process dies just as it hands a batch over, before torch sees that it did.
LOST_IN_BETWEEN = (ConnectionError, EOFError)
# Of Linux's prctl.
PR_SET_PDEATHSIG = 1


def default_workers() -> int:
    """What ``workers: auto`` means here: none on up to two cores, else the cores minus two, at most 8."""
    usable = cores()
    return 0 if usable <= 2 else min(usable - 2, MOST_WORKERS)


def worker_death(error: Exception) -> FinetuneError | None:
    """What to tell the user if ``error`` says that a loader process died; None if it says something else."""
    text = " ".join(str(error).split())
    if isinstance(error, LOST_IN_BETWEEN):
        text = f"it handed a batch over when it ended ({text or type(error).__name__})"
    elif not text.startswith("DataLoader worker"):
        return None
    shm = "/dev/shm"
    room = f" ({shutil.disk_usage(shm).free >> 20} MB free)" if os.path.isdir(shm) else ""  # noqa: PTH112
    return FinetuneError(
        f"a loader process died: {text.rstrip('.')}. Memory may have run out, or {shm}{room}, through which "
        "the processes hand their pictures over (docker: --shm-size=1g). With data.workers: 0 there are none."
    )


class Reader(Dataset[PixelBatch]):
    """Reads and transforms one batch at a time, in whichever process.

    What cannot be read is in :attr:`PixelBatch.bad`: an error that leaves a loader process is rewritten by
    torch.
    """

    def __init__(self, split: Split, transform: Transform, decoded: Decoded | None = None) -> None:
        self.split = split
        self.transform = transform
        self.decoded = decoded

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, orders: list[Order]) -> PixelBatch:
        preprocessing = self.transform.preprocessing
        side, colours = preprocessing.image_size, min(preprocessing.channels, 3)
        pixels = np.empty((len(orders), side, side, colours), dtype=np.uint8)
        indices: list[int] = []
        erased, fresh, bad = [], [], []
        for order, base, is_fresh in self._bases(orders):
            if isinstance(base, BadImageError):
                bad.append(base)
                continue
            if is_fresh and order.stamp is not None:
                fresh.append((order.stamp, base, order.place))
            look = self.transform.look(base, order.key)
            pixels[len(indices)] = look.pixels
            if look.erased is not None:
                erased.append((len(indices), look.erased))
            indices.append(order.picture)
        labels = torch.from_numpy(self.split.targets[np.asarray(indices, dtype=np.int64)])
        read = torch.from_numpy(pixels[: len(indices)])
        kept = Fresh.of(fresh) if fresh else None
        return PixelBatch(read, labels, tuple(indices), tuple(erased), kept, tuple(bad))

    def _bases(self, orders: list[Order]) -> Iterator[tuple[Order, Pixels | BadImageError, bool]]:
        """For each order, in turn, the base or why there is none, and whether it was decoded just now.

        In a process of its own a reader decodes alone. In the one that trains, whose other cores have nothing
        to do until the batch is there, threads decode large pictures, a few ahead. Looks are drawn by one
        thread only.
        """
        alone = get_worker_info() is not None or not self.split.in_threads or not self._large(orders)
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
                nbytes += os.path.getsize(self.split.name(order.picture))  # noqa: PTH202
        return nbytes > LARGE_FILE * len(unkept)

    def _decoded(self, order: Order) -> Pixels | BadImageError:
        try:
            return self.transform.base(self.split.open(order.picture, self.transform.shorter))
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


class Agenda:
    """What a loader is to read next; torch asks for it in the main process each time an epoch begins."""

    def __init__(self) -> None:
        self.batches: Iterator[list[Order]] = iter(())

    def __iter__(self) -> Iterator[list[Order]]:
        return self.batches


def data_loader(
    reader: Reader, agenda: Agenda, workers: int, pin_memory: bool, *, persistent: bool
) -> "DataLoader[PixelBatch]":
    """torch's loader of the batches that ``agenda`` names; ``persistent``: its processes outlive an epoch."""
    with _quiet_start():
        return DataLoader(
            reader,
            batch_sampler=agenda,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            # Its own, since it would draw from the global one.
            generator=torch.Generator(),
            persistent_workers=persistent and workers > 0,
        )


def running(loader: "DataLoader[PixelBatch]", on_bad_image: OnBadImage) -> Generator[PixelBatch]:
    """What ``loader`` reads, batch by batch.

    Raises:
        BadImageError: a picture cannot be read and ``on_bad_image`` is error.
        FinetuneError: a loader process died.
    """
    batches = None
    try:
        with _quiet_start(), _deaths_in_order():
            batches = iter(loader)
        for batch in batches:
            if batch.bad and on_bad_image == "error":
                # A new one: an error that this frame also refers to would keep the frame alive.
                raise BadImageError(batch.bad[0].name, batch.bad[0].reason)
            yield batch
    except (RuntimeError, *LOST_IN_BETWEEN) as error:
        if loader.num_workers and (death := worker_death(error)) is not None:
            raise death from None
        raise
    finally:
        # At once: torch does not end its processes well from within a garbage collection.
        del batches


@contextmanager
def _deaths_in_order() -> Iterator[None]:
    """The death of a loader process is told where its batch is waited for, at most five seconds later.

    torch also raises an error from a handler of SIGCHLD, in whatever code the main thread is in just then,
    be it a destructor or a fork, where Python can do no more than print it. That handler is taken out.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """No advice on the number of processes, which the user chooses, nor on forking, which is torch's way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        yield


def _start_worker(_: int) -> None:
    """Loader processes leave signals to the run, and cores to the network.

    Ctrl-C, and `kill` by a job scheduler, often reach all processes at once; the run still needs its batches
    to finish its step. Only the run itself can end them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    if hasattr(signal, "sigwaitinfo") and run is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, args=(run.pid,), daemon=True).start()
        if run.pid is not None:
            _end_with(run.pid)
    torch.set_num_threads(1)


def _end_with(run: int) -> None:
    """Have the kernel end this process when the run dies, in whichever way, and not seconds later."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != run and multiprocessing.get_start_method() != "forkserver":
        os._exit(0)  # it died before that


def _end_when_told(by: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != by:
        pass
    os._exit(0)


def _as_it_is(batch: Any) -> Any:
    return batch
