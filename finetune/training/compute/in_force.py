"""Apply the process-wide settings of a run, and restore the previous ones afterwards.

Threads, deterministic mode, TF32 and the like belong to the process. A run always has those of its recipe,
and another run or the rest of the program gets its own back.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

from finetune.training.compute.allocator import restored_afterwards
from finetune.training.compute.precision import Compute, allow_tf32, tf32

# Without it cuBLAS is not deterministic, and torch refuses it in deterministic mode.
WORKSPACE, FIXED_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextlib.contextmanager
def in_force(compute: Compute) -> Iterator[None]:
    """Apply the settings of ``compute`` while active, and restore all settings afterwards, also on an error.

    The settings are: the number of threads, deterministic mode of torch, cuDNN and cuBLAS, TF32, the default
    type and device of new tensors, whether gradients are recorded, the state of torch's generators, and the
    allocator. They belong to the process: run two trainings at a time in two processes.
    """
    cuda = compute.device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(restored_afterwards())
        stack.enter_context(torch.random.fork_rng(list(range(torch.cuda.device_count())) if cuda else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(tf32(compute.precision != "fp32"))
        stack.enter_context(_settings())
        apply_settings(compute)
        yield


def apply_settings(compute: Compute) -> None:
    """Apply the settings permanently, for a process that does nothing else.

    With half precision, the remaining fp32 operations use TF32 on CUDA, which is deterministic.
    """
    torch.set_num_threads(compute.threads)
    allow_tf32(compute.precision != "fp32")
    torch.set_default_dtype(torch.float32)
    if compute.deterministic:
        os.environ.setdefault(WORKSPACE, FIXED_WORKSPACE)
    torch.use_deterministic_algorithms(compute.deterministic)
    torch.backends.cudnn.deterministic = compute.deterministic
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Restore, at the end, what :func:`apply_settings` sets."""
    threads, dtype, workspace = torch.get_num_threads(), torch.get_default_dtype(), os.environ.get(WORKSPACE)
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
