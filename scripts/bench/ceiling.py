"""The training step alone, on tensors in memory: the upper bound if loading images were free.

`python -m bench.ceiling JOB`. Precision, memory format, threads and the handling of freed memory
are those of finetune; frozen layers run as finetune runs them.
"""

import time

import torch
from torch import nn

from bench.job import Job, job_of_this_process, print_facts
from bench.network import begin, counted
from bench.plain_loop import LR, MOMENTUM
from finetune.model.auxiliary import loss_and_logits
from finetune.model.freeze import Freeze
from finetune.model.layers.find import find_layers
from finetune.recipe.schema import TrainSection
from finetune.training.compute.allocator import retain_freed_memory, return_large_blocks
from finetune.training.compute.in_force import apply_settings
from finetune.training.compute.precision import choose_compute, pick_device, place


def run(job: Job) -> None:
    """Run the steps of the job's epochs on one batch of noise, without loading images."""
    retain_freed_memory()
    torch.manual_seed(job.seed)
    compute = choose_compute(pick_device(None), TrainSection())
    apply_settings(compute)
    if compute.precision == "fp32":
        return_large_blocks()
    module, facts = begin(job)
    freeze = Freeze(module, find_layers(module, facts["head"]), facts["frozen"][job.work])
    freeze.apply()
    place(module, compute.device)
    channels = len(facts["mean"])
    images = torch.randn(job.batch_size, channels, job.image_size, job.image_size)
    images = images.to(compute.device, memory_format=torch.channels_last)
    labels = (torch.arange(job.batch_size) % job.classes).to(compute.device)
    criterion = nn.CrossEntropyLoss()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR, momentum=MOMENTUM)
    print_facts(**counted(module), threads=compute.threads, precision=compute.precision)
    freeze.train_mode()
    steps = job.images // job.batch_size
    for _ in range(job.epochs):
        began = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with compute.autocast():
                loss, _ = loss_and_logits(criterion, module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        last = loss.item()  # waits for the device
        seconds = time.perf_counter() - began
        print_facts(seconds=seconds, images=steps * job.batch_size, loss=last, val_top1=None)


if __name__ == "__main__":
    run(job_of_this_process())
