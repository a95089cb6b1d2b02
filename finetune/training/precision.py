"""Device, number format and thread count: chosen by a fixed rule, never by a timing."""

import contextlib
import os
from dataclasses import dataclass

import torch
from torch import nn

from finetune.errors import UserError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Where and in which precision the network runs; ``why`` says in words what the choice rests on."""

    device: torch.device
    precision: str
    threads: int
    why: str

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The context that forward passes run in."""
        dtype = DTYPES[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler: at work under fp16 alone, a pass-through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Move ``module`` to ``device`` in the memory format in which convolutions are fastest there.

    Channels-last on the CPU and on CUDA: no network measured was slower in it, and depthwise convolutions
    are far faster. Their inputs follow by themselves.
    """
    if device.type == "mps":
        return module.to(device)
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def pick_device(name: str | None) -> torch.device:
    """The device called ``name``; without one CUDA, else MPS, else the CPU.

    Raises:
        UserError: the name is none that torch knows, or the device is not on this machine.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such device. Write cpu, cuda, cuda:1 or mps.") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"--device {name}: this machine has no such device, or torch cannot use it.")
    return device


def choose_compute(
    device: torch.device, precision: str, threads: int | None, deterministic: bool = False
) -> Compute:
    """Settle precision and threads for ``device`` and put them into force for this process.

    Args:
        precision: fp32, bf16, fp16 or auto (bf16 where CUDA has it, else fp16 on CUDA; fp32 elsewhere).
        threads: CPU threads; None keeps torch's own count.
        deterministic: make torch refuse operations whose bits vary between runs.

    Raises:
        UserError: a precision that the device does not have.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    why = "as the recipe says"
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
            why = "auto: CUDA's half precision, with master weights in fp32"
        else:
            precision, why = "fp32", f"auto: fp32 on {device.type}"
    if precision == "fp16" and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU. On the CPU write fp32 or bf16.")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return Compute(device, precision, torch.get_num_threads(), why)
