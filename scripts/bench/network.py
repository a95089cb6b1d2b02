"""The network that every contestant starts from. finetune builds it once and writes it to a file.

`python -m bench.network JOB` writes it and prints its facts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bench.job import Job, job_of_this_process, print_facts
from finetune.model.backbones import create
from finetune.model.batchnorm import raise_batchnorm_momentum


def write_start(job: Job) -> dict[str, Any]:
    """Write weights, preprocessing and the frozen layers per work to ``job.start``. Returns the facts.

    Raises:
        UserError: the weights or sizes are not possible.
    """
    # Imported here, because a loop that only reads the file does not need it.
    from finetune.model.build import build
    from finetune.recipe.schema import DataSection, ModelSection
    from finetune.training.setup.prepare import resolve_preprocessing

    section = ModelSection(backbone=job.backbone, weights=job.weights)
    network = build(section, job.classes, seed=job.seed, image_size=job.image_size)
    data = DataSection(source=job.folder, image_size=job.image_size)
    preprocessing = resolve_preprocessing(data, network.input_spec)
    body = network.table.body
    frozen = {"everything": 0, "first k": len(body) // 2, "head": len(body)}
    facts = {
        "parameters": sum(parameter.numel() for parameter in network.module.parameters()),
        "layers": len(body),
        "head": network.head_path,
        "auxiliary": bool(network.architecture["auxiliary"]),
        "frozen": frozen,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
    }
    names = {work: [name for layer in body[:k] for name in layer.parameters] for work, k in frozen.items()}
    torch.save({"weights": network.module.state_dict(), "names": names, "facts": facts}, job.start)
    return facts


def begin(job: Job) -> tuple[nn.Module, Mapping[str, Any]]:
    """The starting network with the job's layers frozen, and its facts.

    All contestants get the BatchNorm momentum that finetune chooses for the length of the run. The original
    momentum, meant for long training, would spoil the val accuracy of a short run.
    """
    start = torch.load(job.start, weights_only=True)
    facts = start["facts"]
    module = create(job.backbone, job.classes, image_size=job.image_size, auxiliary=facts["auxiliary"])
    module.load_state_dict(start["weights"])
    raise_batchnorm_momentum(module, "auto", job.steps)
    for name in start["names"][job.work]:
        module.get_parameter(name).requires_grad_(False)
    return module, facts


def counted(module: nn.Module) -> dict[str, int]:
    """The number of parameters and of trained ones, which must agree between contestants."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained": sum(n for n, trains in sizes if trains)}


if __name__ == "__main__":
    print_facts(**write_start(job_of_this_process()))
