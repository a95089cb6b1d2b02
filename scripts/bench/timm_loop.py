"""Training with timm and its best flags: its loader, which normalizes on the device, channels-last, mixed
precision (`--amp`) if the hardware supports it, and its optimizer factory.

Mixed precision and fp32 are separate contestants, because the network decides which is faster.

`python -m bench.timm_loop JOB`
"""

import time

import torch
from timm.data import create_dataset, create_loader  # type: ignore[attr-defined]
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn

from bench.job import Job, job_of_this_process, print_facts
from bench.network import begin, counted
from bench.plain_loop import LR, MOMENTUM
from finetune.model.auxiliary import loss_and_logits
from finetune.recipe.schema import TrainSection
from finetune.training.compute.in_force import apply_settings
from finetune.training.compute.precision import DTYPES, choose_compute, pick_device


def run(job: Job) -> None:
    """Train the shared network, epoch by epoch."""
    torch.manual_seed(job.seed)
    wanted = TrainSection() if job.mixed else TrainSection(precision="fp32")
    compute = choose_compute(pick_device(None), wanted)
    apply_settings(compute)
    half = DTYPES[compute.precision]
    module, facts = begin(job)
    module.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = create_loader(
        create_dataset("", root=job.folder, split="train", is_training=True),
        input_size=(len(facts["mean"]), job.image_size, job.image_size),
        batch_size=job.batch_size,
        is_training=True,
        color_jitter=0.0,
        interpolation=facts["interpolation"],
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        use_multi_epochs_loader=job.workers > 0,
        pin_memory=compute.device.type == "cuda",
        device=compute.device,
    )
    criterion = nn.CrossEntropyLoss()
    # "momentum" is torch's SGD; timm's "sgd" adds Nesterov's step.
    optimizer = create_optimizer_v2(module, opt="momentum", lr=LR, momentum=MOMENTUM, weight_decay=0.0)
    print_facts(**counted(module), threads=torch.get_num_threads(), precision=compute.precision)
    for _ in range(job.epochs):
        began = time.perf_counter()
        module.train()
        losses, count = torch.zeros((), device=compute.device), 0
        for images, labels in batches:
            images = images.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast(compute.device.type, dtype=half, enabled=half is not None):
                loss, _ = loss_and_logits(criterion, module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.detach() * len(labels)
            count += len(labels)
        total = losses.item()  # waits for the device
        seconds = time.perf_counter() - began
        print_facts(seconds=seconds, images=count, loss=total / count, val_top1=None)


if __name__ == "__main__":
    run(job_of_this_process())
