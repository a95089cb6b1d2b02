"""Describe the environment of a run: what a reader needs to repeat it."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import torch

from finetune.model.digests import weights_digest
from finetune.training.compute.precision import cpu_capability
from finetune.training.setup.prepare import Setup
from finetune.version import __version__


def describe_environment(setup: Setup) -> dict[str, Any]:
    """The content of ``environment.json``: versions, machine, choices, data and weights.

    Call it before the first step: it includes a digest of the starting weights.
    """
    compute, weights = setup.compute, setup.network.weights
    return {
        "versions": {
            "finetune": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        },
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": cpu_capability(compute.precision if compute.device.type == "cpu" else "fp32"),
        "command": sys.argv,
        "device": str(compute.device),
        "device_name": torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else None,
        "precision": compute.precision,
        "precision_why": compute.why,
        "memory_format": compute.memory_format,
        "compile": compute.compile,
        "threads": compute.threads,
        "cpu_kernels": compute.cpu_kernels,
        "workers": setup.workers,
        "images": {name: len(split) for name, split in setup.source.splits.items()},
        "classes": list(setup.source.classes),
        "weights": weights.origin if weights is not None else "none",
        "start_fingerprint": weights_digest(setup.network.module),
    }
