"""Settings of the command for its own process: how threads wait, and how freed memory is handled."""

import os
import platform
import subprocess
import sys

import pytest

from finetune.cli.process import configure_waiting
from finetune.training.compute.allocator import USERS_SETTINGS

GLIBC = platform.libc_ver()[0] == "glibc"
# Page faults of allocating and freeing a block of 64 MB ten times, after a first time.
FAULTS = """
import ctypes, resource
from finetune.training.compute.allocator import retain_freed_memory, return_large_blocks
if {keep}:
    print(retain_freed_memory())
if {less}:
    return_large_blocks()
c = ctypes.CDLL(None)
c.malloc.argtypes, c.malloc.restype, c.free.argtypes = [ctypes.c_size_t], ctypes.c_void_p, [ctypes.c_void_p]
def use():
    block = c.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    c.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
BITS = """
import hashlib, sys
from finetune.cli.process import configure_process
if sys.argv[1] == "configured":
    configure_process()
import torch
from torchvision.models import resnet18
torch.manual_seed(0)
torch.set_num_threads(2)
network = resnet18(num_classes=3).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
for _ in range(3):
    optimizer.zero_grad()
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()
    optimizer.step()
digest = hashlib.sha256()
for value in network.state_dict().values():
    digest.update(value.numpy().tobytes())
print(digest.hexdigest())
"""


def run(script: str, *words: str, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name not in USERS_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True, text=True, check=True, env={**clean, **environment},
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="of glibc's malloc alone")
def test_reused_memory_causes_no_page_faults() -> None:
    (without,) = run(FAULTS.format(keep=False, less=False))
    retained, faults = run(FAULTS.format(keep=True, less=False))
    assert retained == "True"
    # One fault per page without the setting (pages may be huge, 2 MB); almost none with it.
    assert int(without) >= 10 * (64 << 20) // (2 << 20) > 10 * int(faults)
    # In fp32 the largest blocks are returned.
    assert int(run(FAULTS.format(keep=True, less=True))[1]) >= 10 * (64 << 20) // (2 << 20)
    # Returning large blocks has no effect without retaining.
    (never,) = run(FAULTS.format(keep=False, less=True))
    assert int(never) >= 10 * (64 << 20) // (2 << 20)


@pytest.mark.skipif(not GLIBC, reason="of glibc's malloc alone")
def test_malloc_settings_of_the_user_win() -> None:
    assert run(FAULTS.format(keep=True, less=False), MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"


def test_waiting_is_configured_unless_the_user_did() -> None:
    environment: dict[str, str] = {}
    configure_waiting(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    for own in ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}):
        environment = dict(own)
        configure_waiting(environment)
        assert environment == own


def test_process_settings_do_not_change_results() -> None:
    assert run(BITS, "configured") == run(BITS, "default")
