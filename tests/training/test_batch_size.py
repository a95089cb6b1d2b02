"""``batch_size: auto``: the same number of images per step on every machine, in batches that fit."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import finetune.training.compute.batch_size as rule
from finetune.errors import NoMemoryError, RunDirError
from finetune.model.build import Network, build
from finetune.recipe.load import load_recipe, parse_recipe
from finetune.recipe.schema import ModelSection, PhaseSection, TrainSection
from finetune.training.compute.batch_size import (
    COPIES_OF_WEIGHTS,
    PEAK,
    StepMemory,
    resolve_batch_size,
    step_memory,
    warn_of_little_memory,
)
from finetune.training.compute.precision import Compute, choose_compute
from finetune.training.fit import fit
from finetune.training.run.directory import RunDir
from finetune.training.run.resume import Continuation

IMAGE = (3, 32, 32)


@pytest.fixture(scope="module")
def network() -> Network:
    return build(ModelSection(backbone="resnet18", weights="none"), 3, seed=0)


def compute(precision: str = "fp32") -> Compute:
    return choose_compute(torch.device("cpu"), TrainSection(precision=precision, threads=1))  # type: ignore[arg-type]


def give(monkeypatch: pytest.MonkeyPatch, room: int | None) -> None:
    monkeypatch.setattr(rule, "_room", lambda: room)


def test_the_memory_of_a_step_has_a_closed_form() -> None:
    """A linear layer keeps its input and a ReLU its output: 12 and 5 numbers an image."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    found = step_memory(module, (3, 2, 2), compute())
    weights = 12 * 5 + 5 + 5 * 2 + 2
    assert found.fixed == COPIES_OF_WEIGHTS * 4 * weights
    # The image itself, as it comes, beside what is kept.
    assert found.image == round(PEAK * 4 * (12 + 5 + 12))
    module[1].requires_grad_(False)
    frozen = step_memory(module, (3, 2, 2), compute())
    assert frozen.image == round(PEAK * 4 * (5 + 12))


def test_half_precision_takes_less(network: Network) -> None:
    taken = {kind: step_memory(network.module, IMAGE, compute(kind)).image for kind in ("fp32", "bf16")}
    assert 0.4 * taken["fp32"] < taken["bf16"] < 0.8 * taken["fp32"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's counters")
def test_a_step_takes_no_more_than_is_estimated() -> None:
    """Of a whole process's peak: resnet18 in fp32, of which the estimate is the closest."""
    script = """
import resource
from finetune.cli.process import configure_process
configure_process()
import torch
from pathlib import Path
from finetune.model.build import build
from finetune.recipe.schema import ModelSection, TrainSection
from finetune.training.compute.batch_size import step_memory
from finetune.training.compute.precision import choose_compute, place
torch.set_num_threads(1)
compute = choose_compute(torch.device("cpu"), TrainSection(precision="fp32", threads=1))
network = build(ModelSection(backbone="resnet18", weights="none"), 3, seed=0)
module = place(network.module, compute.device).train()
estimate = step_memory(module, (3, 128, 128), compute)
before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
optimizer = torch.optim.AdamW(module.parameters())
for _ in range(3):
    optimizer.zero_grad(set_to_none=True)
    module(torch.rand(32, 3, 128, 128)).square().sum().backward()
    optimizer.step()
# Not getrusage, whose peak begins at that of the process that started this one.
(peak,) = (int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak - before, estimate.of(32))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    actual, estimated = map(int, done.stdout.split())
    assert 0.5 * estimated < actual <= estimated


def test_the_size_is_halved_until_it_fits() -> None:
    taken = StepMemory(fixed=100, image=10)
    assert [taken.largest(32, room) for room in (420, 419, 200, 120, 119)] == [32, 16, 8, 2, None]
    assert taken.largest(3, 125) == 2


def test_auto_is_32_images_per_step_in_batches_that_fit(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = TrainSection(batch_size="auto", accumulate=3)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    state = torch.get_rng_state()
    taken = step_memory(network.module.train(), IMAGE, compute())
    network.module.load_state_dict(before)
    for size in (32, 16, 4, 2):
        give(monkeypatch, taken.of(size))
        settled = resolve_batch_size(auto, network, IMAGE, compute())
        assert (settled.batch_size, settled.accumulate) == (size, 3 * 32 // size)
    give(monkeypatch, None)
    assert resolve_batch_size(auto, network, IMAGE, compute()).batch_size == 32
    given = TrainSection(batch_size=7)
    assert resolve_batch_size(given, network, IMAGE, compute()) is given
    give(monkeypatch, taken.of(2) - 1)
    with pytest.raises(NoMemoryError, match=r"not even 2 images of 32 px.*data\.image_size"):
        resolve_batch_size(auto, network, IMAGE, compute())
    # Nothing of the network, and nothing random, has moved.
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_frozen_in_every_phase_need_no_memory(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = (PhaseSection(freeze="backbone"), PhaseSection(freeze=8))
    give(monkeypatch, step_memory(network.module, IMAGE, compute()).of(4))
    everything = resolve_batch_size(TrainSection(batch_size="auto"), network, IMAGE, compute())
    part = resolve_batch_size(TrainSection(batch_size="auto", phases=phases), network, IMAGE, compute())
    assert (everything.batch_size, part.batch_size) == (4, 32)


def test_a_step_that_may_not_fit_is_warned_of(
    network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken = step_memory(network.module, IMAGE, compute())
    train = TrainSection(batch_size=16)
    with caplog.at_level(logging.WARNING):
        give(monkeypatch, taken.of(16))
        warn_of_little_memory(train, network, IMAGE, compute())
        assert not caplog.messages
        give(monkeypatch, taken.of(8))
        warn_of_little_memory(train, network, IMAGE, compute())
    (message,) = caplog.messages
    assert "a step of 16 images" in message
    assert "train.batch_size: 8 fits" in message


@pytest.fixture
def text(shapes: Path) -> str:
    return f"""\
data: {{source: {shapes}, image_size: 32, workers: 0}}
model: {{backbone: shufflenet_v2_x0_5, weights: none}}
train: {{batch_size: auto, threads: 1, phases: [{{freeze: none, epochs: 2, lr: 1e-3}}]}}
"""


def test_the_size_is_recorded_and_a_resume_uses_it(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse_recipe(text, "r.yaml")
    network = build(recipe.model, 2, seed=0)
    taken = step_memory(network.module, IMAGE, compute(rule_precision()))
    give(monkeypatch, taken.of(8))
    with RunDir.open(tmp_path / "whole") as run:
        fit(recipe, run, device="cpu")
    resolved = load_recipe(tmp_path / "whole" / "resolved.yaml").train
    assert (resolved.batch_size, resolved.accumulate) == (8, 4)
    # On a machine with all the memory there is.
    give(monkeypatch, None)
    with RunDir.open(tmp_path / "whole", resume=True) as run:
        assert fit(recipe, run, device="cpu", continuation=Continuation(resume=True)).already_finished
    other = parse_recipe(text.replace("auto", "auto, accumulate: 2"), "r.yaml")
    with (
        RunDir.open(tmp_path / "whole", resume=True) as run,
        pytest.raises(RunDirError, match="accumulate: 4 before, 2 now"),
    ):
        fit(other, run, device="cpu", continuation=Continuation(resume=True))


def rule_precision() -> str:
    return choose_compute(torch.device("cpu"), TrainSection(threads=1)).precision
