"""Choose device, precision, memory format and thread count: by a fixed rule, never by a timing.

Training steps run in the chosen precision, and so do frozen layers whose features cannot be cached.
Everything else runs in fp32: cached features (runs share them with ``probe``, ``rank`` and ``advise``),
solved heads, BatchNorm recalibration, val and test. So metrics on val and test do not depend on the training
precision, and are the same as in ``finetune eval``.
"""

import contextlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from finetune.data.machine import cores
from finetune.errors import UserError, printable, require_known
from finetune.recipe.schema import TrainSection
from finetune.training.compute import cpu_kernels
from finetune.training.compute.cpu_kernels import CpuKernels
from finetune.training.compute.shuffle import shuffles_keep_format

Precision = Literal["fp32", "bf16", "fp16"]
InferencePrecision = Literal["fp32", "bf16"]
MemoryFormat = Literal["channels_last", "contiguous"]

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# CPU units that compute bf16 in hardware, by torch's name for them. Other CPUs compute bf16 in software, more
# slowly than fp32.
BF16_UNITS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "bf16": "Arm BF16",
}
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Compute:
    """Where and how the network runs.

    Attributes:
        precision: of training steps.
        why: the reason for the precision, for the user.
        compile: whether training goes through ``torch.compile``.
        deterministic: whether to refuse operations whose results vary between runs.
        cpu_kernels: whether :mod:`finetune.training.compute.cpu_kernels` replaces operations.
    """

    device: torch.device
    precision: Precision
    threads: int
    why: str
    memory_format: MemoryFormat = "channels_last"
    compile: bool = False
    deterministic: bool = False
    cpu_kernels: bool = False

    def __post_init__(self) -> None:
        require_known("precision", self.precision, get_args(Precision))
        require_known("memory format", self.memory_format, get_args(MemoryFormat))

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """The context for forward passes in training."""
        dtype = DTYPES[self.precision]
        with contextlib.ExitStack() as stack:
            if dtype is not None:
                stack.enter_context(torch.autocast(self.device.type, dtype=dtype))
            if self.cpu_kernels:
                stack.enter_context(CpuKernels(half=dtype is torch.bfloat16))
                stack.enter_context(shuffles_keep_format())
            yield

    def exact(self) -> contextlib.AbstractContextManager[None]:
        """The context for everything but training: fp32."""
        return inference(self.device)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, which scales only in fp16."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def describe(self) -> str:
        """In words, for the user."""
        layout = "channels last" if self.memory_format == "channels_last" else "contiguous"
        compiled = ", compiled" if self.compile else ""
        return f"{self.device}, {self.precision} ({self.why}), {layout}{compiled}, {self.threads} threads"


@contextlib.contextmanager
def inference(device: torch.device, precision: InferencePrecision = "fp32") -> Iterator[None]:
    """The context for evaluation and prediction, whatever the training precision was.

    fp32 means without TF32, which on CUDA uses only 10 of the 23 mantissa bits in products.
    """
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(tf32(False))
        if precision != "fp32":
            stack.enter_context(torch.autocast(device.type, dtype=DTYPES[precision]))
        yield


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Turn TF32 for fp32 products on CUDA on or off while active."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    allow_tf32(on)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def allow_tf32(on: bool) -> None:
    """Turn TF32 for fp32 products on CUDA on or off."""
    # Not torch's newer settings per backend: with those, torch.compile cannot read these.
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def place(module: nn.Module, device: torch.device, memory_format: MemoryFormat | None = None) -> nn.Module:
    """Move ``module`` to ``device`` in a memory format (None: :func:`choose_memory_format`).

    Inputs need no conversion.
    """
    layout = MEMORY_FORMATS[memory_format or choose_memory_format(device.type)]
    return module.to(device=device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def pick_device(name: str | None) -> torch.device:
    """Return the device called ``name``; None: CUDA if there is one, else MPS, else the CPU.

    Raises:
        UserError: torch does not know the name, or this machine lacks the device.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device {printable(name)}: no such device. Write cpu, cuda, cuda:1 or mps."
        ) from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device {printable(name)}: this machine has no such device, or torch cannot use it.")
    return device


def choose_compute(device: torch.device, train: TrainSection) -> Compute:
    """Choose what ``train`` leaves to the machine.

    Changes no setting: :func:`finetune.training.compute.in_force.in_force` does.

    Raises:
        UserError: the device lacks the precision, or there is no compiler for ``train.compile``.
    """
    # torch counts the cores of the machine, not those that a container may use.
    threads = min(cores(), torch.get_num_threads()) if train.threads == "auto" else train.threads
    precision: Precision
    if train.precision != "auto":
        precision, why = train.precision, "as the recipe says"
    else:
        precision, why = choose_precision(
            device.type,
            units=cpu_units() if device.type == "cpu" else (),
            cuda_bf16=device.type == "cuda" and computes_bf16(device),
        )
    if precision == "fp16" and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU. On the CPU write fp32 or bf16.")
    if train.compile:
        require_compiler(device)
    layout = choose_memory_format(device.type) if train.memory_format == "auto" else train.memory_format
    kernels = device.type == "cpu" and cpu_kernels.are_enabled()
    return Compute(device, precision, threads, why, layout, train.compile, train.deterministic, kernels)


def choose_precision(
    device_type: str, *, units: tuple[str, ...] = (), cuda_bf16: bool = False
) -> tuple[Precision, str]:
    """Resolve ``precision: auto``. Return the precision and the reason.

    Args:
        device_type: cpu, cuda or mps.
        units: of :func:`cpu_units`.
        cuda_bf16: whether the GPU computes bf16 in hardware.
    """
    if device_type == "cuda":
        half: Precision = "bf16" if cuda_bf16 else "fp16"
        return half, f"auto: this GPU computes {half}; weights stay fp32"
    if device_type != "cpu":
        return "fp32", f"auto: fp32 on {device_type}"
    if units:
        return "bf16", f"auto: this CPU has {' and '.join(units)}; weights stay fp32"
    return "fp32", "auto: this CPU has no bf16"


def choose_memory_format(device_type: str) -> MemoryFormat:
    """Resolve ``memory_format: auto``: channels-last on the CPU and on CUDA.

    No network that was measured is slower in it, and depthwise convolutions are much faster.
    """
    return "contiguous" if device_type == "mps" else "channels_last"


def cpu_units() -> tuple[str, ...]:
    """The units of this CPU that compute bf16, as named in :data:`BF16_UNITS`; none without oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return ()
    flags = cpu_flags()
    return tuple(called for flag, called in BF16_UNITS.items() if flag in flags)


def computes_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 in hardware, and not slowly in software."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type != "cpu" or bool(cpu_units())


def cpu_flags() -> frozenset[str]:
    """The capabilities of this CPU, by torch's names; empty if unknown."""
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.11
        return frozenset(name for name, there in torch.cpu.get_capabilities().items() if there is True)
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return flags_in(text)


def flags_in(cpuinfo: str) -> frozenset[str]:
    """The flags that Linux lists in ``/proc/cpuinfo`` (``flags`` on x86, ``Features`` on Arm)."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_capability(precision: str) -> str:
    """The CPU features that affect results bit by bit: vector instructions, and units for bf16."""
    units = cpu_units() if precision == "bf16" else ()
    return " + ".join([torch.backends.cpu.get_cpu_capability(), *units])


def require_compiler(device: torch.device) -> None:
    """Check that ``torch.compile`` finds a compiler.

    Raises:
        UserError: there is no C++ compiler for the CPU, or no Triton for CUDA.
    """
    if device.type == "cpu":
        names = [os.environ.get("CXX"), "g++", "clang++", "cl" if platform.system() == "Windows" else None]
        if not any(name and shutil.which(name.split()[0]) for name in names):
            raise UserError(
                "train.compile: true needs a C++ compiler, and there is none on the PATH. Install g++ or "
                "clang++ (or name one in CXX), or leave train.compile out."
            )
    elif device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("train.compile: true needs Triton on CUDA: pip install triton, or leave it out.")
