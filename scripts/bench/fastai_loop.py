"""Training with fastai: its loaders from a folder, item crops and batch flips, and its learner.

`python -m bench.fastai_loop JOB`
"""

import time
import warnings
from functools import partial
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # it uses deprecated functions of torch
    from fastai.vision import all as fastai

from bench.job import Job, job_of_this_process, print_facts
from bench.network import begin, counted
from bench.plain_loop import LR, MOMENTUM


class _Clock(fastai.Callback):  # type: ignore[misc]
    """Reports the training steps of each epoch."""

    def before_train(self) -> None:
        self.began = time.perf_counter()
        self.losses, self.images = 0.0, 0

    def after_batch(self) -> None:
        if self.learn.training:
            self.losses += self.learn.loss.item() * len(self.learn.yb[0])
            self.images += len(self.learn.yb[0])

    def after_train(self) -> None:
        seconds = time.perf_counter() - self.began
        print_facts(seconds=seconds, images=self.images, loss=self.losses / self.images, val_top1=None)


def loaders(job: Job, facts: Any) -> Any:
    """Batches of train and val."""
    return fastai.ImageDataLoaders.from_folder(
        job.folder,
        train="train",
        valid="val",
        item_tfms=fastai.RandomResizedCrop(job.image_size, min_scale=0.08),
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats(facts["mean"], facts["std"])],
        bs=job.batch_size,
        num_workers=job.workers,
    )


def run(job: Job) -> None:
    """Train epoch by epoch; the network is the one that all train."""
    fastai.set_seed(job.seed)
    module, facts = begin(job)
    learner = fastai.Learner(
        loaders(job, facts),
        module,
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(fastai.OptimWrapper, opt=torch.optim.SGD, momentum=MOMENTUM),
        cbs=[_Clock()],
    )
    learner.remove_cb(fastai.ProgressCallback)
    print_facts(**counted(module), threads=torch.get_num_threads(), precision="fp32")
    with learner.no_logging():
        learner.fit(job.epochs, lr=LR)


if __name__ == "__main__":
    run(job_of_this_process())
