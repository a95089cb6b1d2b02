"""The rule that chooses precision and formats, on fake machines, and its effect on this one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune.data.batches.batch import Batch
from finetune.errors import CheckpointError, UserError
from finetune.recipe.schema import TrainSection
from finetune.training.compute import precision
from finetune.training.compute.in_force import in_force
from finetune.training.compute.precision import (
    choose_compute,
    choose_memory_format,
    choose_precision,
    cpu_units,
    flags_in,
    inference,
    place,
    tf32,
)
from finetune.training.run.saved import fill_in_choices, read_environment

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("machine", "expected", "says"),
    [
        ({"device_type": "cpu"}, "fp32", "this CPU has no bf16"),
        ({"device_type": "cpu", "units": ("AMX", "AVX512-BF16")}, "bf16", "this CPU has AMX and AVX512-BF16"),
        ({"device_type": "cuda", "cuda_bf16": True}, "bf16", "this GPU computes bf16"),
        ({"device_type": "cuda", "cuda_bf16": False}, "fp16", "this GPU computes fp16"),
        ({"device_type": "mps"}, "fp32", "on mps"),
    ],
)
def test_the_rule_chooses_the_precision(machine: dict[str, Any], expected: str, says: str) -> None:
    found, why = choose_precision(**machine)
    assert found == expected
    assert says in why


@pytest.mark.parametrize(
    ("flags", "units"),
    [
        ({"avx512_f", "avx512_vnni"}, ()),
        ({"avx512_f", "avx512_bf16"}, ("AVX512-BF16",)),
        ({"amx_tile", "amx_int8"}, ()),
        ({"amx_bf16", "avx512_bf16"}, ("AMX", "AVX512-BF16")),
        ({"neon", "bf16"}, ("Arm BF16",)),
    ],
)
def test_units_of_a_cpu_for_bf16(
    flags: set[str], units: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert cpu_units() == units
    compute = choose_compute(CPU, TrainSection())
    assert compute.precision == ("bf16" if units else "fp32")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert cpu_units() == ()


def test_flags_are_read_from_linux_if_torch_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    assert precision.cpu_flags() == frozenset()
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\n"
    )
    assert precision.cpu_flags() == {"fpu", "avx512_bf16", "amx_bf16"}
    assert flags_in("Features : fp asimd bf16\n") == {"fp", "asimd", "bf16"}


def test_the_recipe_overrides_the_rule() -> None:
    for wanted in ("fp32", "bf16"):
        compute = choose_compute(CPU, TrainSection(precision=wanted, memory_format="contiguous"))
        assert (compute.precision, compute.memory_format) == (wanted, "contiguous")
        assert "as the recipe says" in compute.describe()
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        choose_compute(CPU, TrainSection(precision="fp16"))


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_the_memory_format_is_that_of_the_weights(layout: Any) -> None:
    module = place(nn.Conv2d(4, 8, 3), CPU, layout)
    weight = module.get_parameter("weight")
    assert weight.is_contiguous(memory_format=precision.MEMORY_FORMATS[layout])
    assert [choose_memory_format(kind) for kind in ("cpu", "cuda", "mps")] == [
        "channels_last", "channels_last", "contiguous",
    ]  # fmt: skip


def test_training_runs_in_bf16_and_all_else_in_fp32() -> None:
    compute, module, images = (
        choose_compute(CPU, TrainSection(precision="bf16")),
        nn.Linear(4, 2),
        torch.rand(3, 4),
    )
    with compute.autocast():
        assert module(images).dtype == torch.bfloat16
    with compute.exact():
        assert module(images).dtype == torch.float32
    with inference(CPU, "bf16"):
        assert module(images).dtype == torch.bfloat16


def test_tf32_is_restored() -> None:
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with tf32(True):
        assert now() == ("high", True)
        with tf32(False):
            assert now() == ("highest", False)
        assert now() == ("high", True)
    assert now() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("wanted", "on"), [("fp32", False), ("bf16", True)])
def test_tf32_follows_the_precision(wanted: Any, on: bool) -> None:
    with tf32(False):
        compute = choose_compute(torch.device("cuda"), TrainSection(precision=wanted))
        with in_force(compute):
            assert torch.backends.cudnn.allow_tf32 == on
            with compute.exact():
                assert not torch.backends.cudnn.allow_tf32


def test_a_resumed_run_keeps_its_choices() -> None:
    known = {"threads": 3, "precision": "bf16", "memory_format": "contiguous", "device": "cpu"}
    taken = fill_in_choices(TrainSection(), known)
    assert (taken.threads, taken.precision, taken.memory_format) == (3, "bf16", "contiguous")
    asked = TrainSection(threads=1, precision="fp32", memory_format="channels_last")
    assert fill_in_choices(asked, known) == asked
    assert fill_in_choices(TrainSection(), {}) == TrainSection()


@pytest.mark.parametrize("harm", [{"precision": "int8"}, {"memory_format": "rows"}, {"threads": 0}])
def test_an_impossible_environment_is_refused(harm: dict[str, Any], tmp_path: Path) -> None:
    document = {"threads": 1, "precision": "bf16", "memory_format": "contiguous"}
    (tmp_path / "environment.json").write_text(json.dumps(document))
    assert read_environment(tmp_path) == document
    (tmp_path / "environment.json").write_text(json.dumps(document | harm))
    with pytest.raises(CheckpointError, match="environment"):
        read_environment(tmp_path)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        choose_compute(CPU, TrainSection(compile=True))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    assert "compiled" in choose_compute(CPU, TrainSection(compile=True)).describe()


def test_batches_go_to_the_gpu_without_waiting() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    images = torch.rand(2, 3, 4, 4).pin_memory()
    labels = torch.zeros(2, dtype=torch.int64)
    moved = Batch(images, labels, labels, (0, 1), ()).to(torch.device("cuda"), non_blocking=True)
    assert moved.images.is_cuda
