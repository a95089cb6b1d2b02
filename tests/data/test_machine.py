"""Cores and memory within the limits of a container, in both layouts of control groups."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.data.machine import cores, free_memory, memory

GB = 10**9


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 99000000 kB\nMemAvailable: 80000000 kB\nDirty: 0\n")
    return tmp_path / "proc"


def group(place: Path, **files: Any) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture(autouse=True)
def a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100 * GB // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


@pytest.mark.parametrize(("quota", "count"), [("200000", 2), ("150000", 2), ("5000", 1), ("max", 64)])
def test_groups_of_v2(proc: Path, tmp_path: Path, quota: str, count: int) -> None:
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    group(tmp_path / "g" / "a" / "b", cpu__max=f"{quota} 100000", memory__max="max", memory__current=1)
    assert cores(tmp_path / "g", proc) == count
    assert memory(tmp_path / "g", proc) == pytest.approx(100 * GB, rel=1e-6)
    assert free_memory(tmp_path / "g", proc) == 80_000_000 * 1024


def test_the_limits_of_outer_groups_hold(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    group(tmp_path / "g" / "a", cpu__max="300000 100000", memory__max=4 * GB, memory__current=3 * GB)
    group(tmp_path / "g" / "a", memory__stat=f"anon 5\ninactive_file {GB}")
    group(tmp_path / "g" / "a" / "b", cpu__max="800000 100000", memory__max=9 * GB, memory__current=GB)
    group(tmp_path / "g" / "a" / "b", memory__stat="anon 5")
    assert cores(tmp_path / "g", proc) == 3
    assert memory(tmp_path / "g", proc) == 4 * GB
    # Cached files can be dropped.
    assert free_memory(tmp_path / "g", proc) == 2 * GB


def test_groups_of_v1(proc: Path, tmp_path: Path) -> None:
    # The path is that of the host, which a container does not see. Its root is the group of the container.
    (proc / "self" / "cgroup").write_text("4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/\n")
    group(tmp_path / "g" / "cpu", cpu__cfs_quota_us=400000, cpu__cfs_period_us=100000)
    group(tmp_path / "g" / "memory", memory__limit_in_bytes=3 * GB, memory__usage_in_bytes=GB)
    group(tmp_path / "g" / "memory", memory__stat="total_inactive_file 0")
    assert cores(tmp_path / "g", proc) == 4
    assert (memory(tmp_path / "g", proc), free_memory(tmp_path / "g", proc)) == (3 * GB, 2 * GB)
    group(tmp_path / "g" / "cpu", cpu__cfs_quota_us=-1)
    assert cores(tmp_path / "g", proc) == 64


@pytest.mark.parametrize("content", ["", "nonsense", "0::/gone\n", "0::/../..\n"])
def test_an_unknown_limit_is_none(proc: Path, tmp_path: Path, content: str) -> None:
    (proc / "self" / "cgroup").write_text(content)
    assert cores(tmp_path / "g", proc) == 64
    assert memory(tmp_path / "g", proc) == pytest.approx(100 * GB, rel=1e-6)
    assert free_memory(tmp_path / "g", tmp_path / "none") is None


def test_the_limit_of_a_shell_counts() -> None:
    script = "from finetune.data.machine import free_memory; print(free_memory())"
    limit = GB // 2
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert 0 < int(done.stdout) < limit
