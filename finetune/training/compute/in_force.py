"""What a run sets in its process as a whole, and puts back when it is over.

Threads, deterministic mode, TF32 and the like belong to the process. A run has those of its recipe, whatever
was set before it, and what comes after it, another run or the rest of a program, has its own again.
"""

import contextlib
import os
from collections.abc import Iterator

import torch

from finetune.training.compute.allocator import restored_afterwards
from finetune.training.compute.precision import Compute, allow_tf32, tf32

# Without it cuBLAS is not deterministic, and torch refuses to use it where that is asked for.
WORKSPACE, FIXED_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextlib.contextmanager
def in_force(compute: Compute) -> Iterator[None]:
    """Within, this process computes as ``compute`` says; afterwards every setting is what it was.

    These are: the number of threads, deterministic mode with cuDNN's and cuBLAS's part in it, TF32, the
    default type and device of new tensors, whether gradients are recorded, the state of torch's generators,
    and what becomes of freed memory. For the process as a whole: two runs at a time want two processes.
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
    """For good: as a process of its own, which does nothing else, may have it.

    Under half precision what is left in fp32 is computed in TF32 on CUDA, whose bits do not vary from run to
    run.
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
    """Afterwards, what :func:`apply_settings` sets is what it was."""
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
