"""The machine and the versions that the numbers were measured with. Free of torch."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("torch", "torchvision", "timm", "fastai", "numpy", "pillow")
# Instructions that decide in which number format a CPU is fast.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(threads: int) -> dict[str, Any]:
    """Machine and versions, as JSON; ``threads`` is what each contestant gets."""
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return {
        **_cpu(),
        "cores": cores(),
        "threads": threads,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version(), **versions},
    }


def _cpu() -> dict[str, Any]:
    if not CPUINFO.is_file():
        return {"cpu": platform.processor() or platform.machine(), "instructions": []}
    # Of the first core; the others are alike.
    pairs = (line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").splitlines())
    facts: dict[str, str] = {}
    for key, _, value in pairs:
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return {"cpu": name, "instructions": [each for each in INSTRUCTIONS if each in flags]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
