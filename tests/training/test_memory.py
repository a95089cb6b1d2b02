"""Out of memory in a step: the error names a batch size that fits, and checkpoints stay intact."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finetune.data.batches.batch import Batch
from finetune.errors import NoMemoryError, is_out_of_memory
from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import TrainSection
from finetune.training.compute.memory import largest_that_fits
from finetune.training.compute.precision import choose_compute
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation
from finetune.training.steps.loop import Stepper, Totals
from finetune.training.steps.schedule import Schedule

SAYS = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError(SAYS), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 6.77 GB)"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution forward"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ImportError("libtorch.so: cannot open shared object file: Cannot allocate memory"), True),
        (ImportError("libtorch.so: cannot open shared object file: No such file or directory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


@pytest.mark.skipif(os.name != "posix", reason="needs limits of a process")
@pytest.mark.parametrize("limited", [True, False])
def test_a_library_that_does_not_fit_into_the_address_space_is_one_too(
    limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit its file lies where nothing may be run from."""
    import resource

    limit = 1 << 40 if limited else resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert is_out_of_memory(error) == limited


@pytest.mark.parametrize(
    ("size", "room", "found"), [(64, 20, 16), (64, 32, 32), (7, 3, 3), (6, 2, 2), (64, 1, None), (2, 1, None)]
)
def test_halves_are_tried_until_one_fits(size: int, room: int, found: int | None) -> None:
    tried = []

    def attempt(count: int) -> None:
        tried.append(count)
        if count > room:
            raise MemoryError

    assert largest_that_fits(size, attempt) == found
    assert all(2 <= count < size for count in tried)


def test_other_errors_are_not_hidden() -> None:
    def attempt(count: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        largest_that_fits(8, attempt)


class Hungry(nn.Module):
    """Has room for so many images; what it was given is in ``seen``."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.room = room
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.room:
            raise RuntimeError(SAYS)
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def step(model: nn.Module, size: int, accumulate: int = 1) -> None:
    compute = choose_compute(torch.device("cpu"), TrainSection(precision="fp32"))
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "lr": 0.1, "base_lr": 0.1}])
    schedule, loss = Schedule("constant", 9), nn.CrossEntropyLoss()
    stepper = Stepper(
        model, optimizer, loss, schedule, compute, compute.scaler(), 0, str, accumulate=accumulate
    )
    labels = torch.arange(size) % 3
    batch = Batch(torch.rand(size, 3, 2, 2), labels, labels, tuple(range(size)))
    stepper.step([batch] * accumulate, Totals(), 4, 4)


def test_the_message_names_a_size_that_fits() -> None:
    model = Hungry(room=5)
    with pytest.raises(NoMemoryError) as raised:
        step(model, 32, accumulate=2)
    text = str(raised.value)
    assert "out of memory at step 5, in a batch of 32 images" in text
    assert "train.batch_size: 4, and train.accumulate: 16" in text
    assert "--resume" in text
    assert model.seen == [32, 16, 8, 4]


def test_if_no_size_fits_the_message_advises_otherwise() -> None:
    with pytest.raises(NoMemoryError, match=r"Not even 2 images fit.*data\.image_size"):
        step(Hungry(room=0), 32)


def test_the_run_resumes_once_memory_is_free(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""\
data: {{source: {shapes}, image_size: 32, workers: 0}}
model: {{backbone: shufflenet_v2_x0_5, weights: none}}
train: {{batch_size: 8, phases: [{{freeze: none, epochs: 2, lr: 1e-3}}]}}
"""
    recipe = parse_recipe(text, "r.yaml")
    with RunDir.open(tmp_path / "whole") as run:
        fit(recipe, run, device="cpu")
    real, calls = Stepper.backward, []

    def fails(self: Stepper, batch: Batch, *rest: object) -> None:
        calls.append(len(batch.indices))
        if len(calls) >= 6 and len(batch.indices) > 2:
            raise RuntimeError(SAYS)
        real(self, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Stepper, "backward", fails)
    with (
        RunDir.open(tmp_path / "stopped") as run,
        pytest.raises(NoMemoryError, match=r"train\.batch_size: 2"),
    ):
        fit(recipe, run, device="cpu")
    monkeypatch.undo()
    with RunDir.open(tmp_path / "stopped", resume=True) as run:
        fit(recipe, run, device="cpu", continuation=Continuation(resume=True))
    for name in ("checkpoints/last/model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


LIMITED = """
import resource, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_memory import step
model = torch.nn.Sequential(torch.nn.Upsample(scale_factor=512), torch.nn.Conv2d(3, 16, 1),
                            torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
torch.set_num_threads(1)
step(model, 2)
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + 2**31
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    step(model, 64)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_real_limit_of_memory() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(Path(__file__).parent)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.startswith("NoMemoryError out of memory at step 5, in a batch of 64 images")
    assert "fit: set train.batch_size" in ended.stdout
