"""The loop of the tutorials: `ImageFolder`, torchvision's transforms, a `DataLoader`, fp32, SGD, a step rate.

The shape of PyTorch's transfer learning tutorial, with the benchmark's batch size in place of its 4, and the
rate scaled with it. `python -m bench.plain_loop JOB`
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bench.job import Job, job_of_this_process, print_facts
from bench.network import begin, counted
from finetune.model.auxiliary import loss_and_logits

# The tutorial's rate at its batch size, its momentum, and how its rate falls.
LR, BATCH_SIZE, MOMENTUM = 1e-3, 4, 0.9
DROP_EVERY, DROP = 7, 0.1


def loaders(job: Job, facts: Mapping[str, Any]) -> "dict[str, DataLoader[Any]]":
    """Batches of train and val."""
    tail = [transforms.ToTensor(), transforms.Normalize(facts["mean"], facts["std"])]
    resampling = transforms.InterpolationMode(facts["interpolation"])
    views = {
        "train": [
            transforms.RandomResizedCrop(job.image_size, interpolation=resampling),
            transforms.RandomHorizontalFlip(),
        ],
        "val": [
            transforms.Resize(facts["resize"], interpolation=resampling),
            transforms.CenterCrop(job.image_size),
        ],
    }
    return {
        name: DataLoader(
            datasets.ImageFolder(str(Path(job.folder, name)), transforms.Compose([*view, *tail])),
            batch_size=job.batch_size,
            shuffle=name == "train",
            num_workers=job.workers,
        )
        for name, view in views.items()
    }


def run(job: Job) -> None:
    """Train and, where the job wants it, judge, epoch by epoch."""
    torch.manual_seed(job.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, facts = begin(job)
    module.to(device)
    batches = loaders(job, facts)
    criterion = nn.CrossEntropyLoss()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LR * job.batch_size / BATCH_SIZE, momentum=MOMENTUM)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, DROP_EVERY, DROP)
    print_facts(**counted(module), threads=torch.get_num_threads(), precision="fp32")
    for _ in range(job.epochs):
        began = time.perf_counter()
        module.train()
        losses, count = 0.0, 0
        for images, labels in batches["train"]:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss, _ = loss_and_logits(criterion, module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.item() * len(labels)
            count += len(labels)
        scheduler.step()
        seconds = time.perf_counter() - began
        top1 = judge(module, batches["val"], device) if job.judge else None
        print_facts(seconds=seconds, images=count, loss=losses / count, val_top1=top1)


@torch.no_grad()
def judge(module: nn.Module, batches: "DataLoader[Any]", device: torch.device) -> float:
    """Top-1 as a fraction."""
    module.eval()
    correct, count = 0, 0
    for images, labels in batches:
        correct += int((module(images.to(device)).argmax(1) == labels.to(device)).sum())
        count += len(labels)
    return correct / count


if __name__ == "__main__":
    run(job_of_this_process())
