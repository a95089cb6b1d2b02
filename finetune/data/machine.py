"""The cores and the memory that this process may use, within the limits of a container or a shell.

Linux states the limits of a container in control groups, which have two layouts (v1 and v2). In both, a
process is subject to the limits of its own group and of all groups around it. An unknown limit counts as
none. Torch-free.
"""

import contextlib
import math
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def cores(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """The number of cores that this process may use, given its affinity and its quota of CPU time."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = min(_in_groups("cpu", _quota, groups, proc), default=math.inf)
    return max(1, min(count, math.ceil(quota))) if quota < count else count


def memory(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """The most memory that this process can have, in bytes; 0 if unknown."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min([total, *(limit for limit, _ in _in_groups("memory", _memory_of, groups, proc))])
    return 0


def free_memory(groups: Path = GROUPS, proc: Path = PROC) -> int | None:
    """The memory that this process can still allocate, in bytes; None if unknown.

    Memory that the system can free at once, such as cached files, counts as free.
    """
    found = [limit - used for limit, used in _in_groups("memory", _memory_of, groups, proc)]
    with contextlib.suppress(OSError, ValueError):
        found.append(_entries(proc / "meminfo")["MemAvailable:"] * 1024)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            pages = int((proc / "self" / "statm").read_text().split()[0])
            found.append(limit - pages * resource.getpagesize())
    return max(0, min(found)) if found else None


def _in_groups(kind: str, read: Callable[[Path], T | None], groups: Path, proc: Path) -> Iterator[T]:
    """Yield the result of ``read`` for each group of the process, from its own to the outermost."""
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, _, rest = line.partition(":")
            kinds, _, path = rest.partition(":")
            if kinds and kind not in kinds.split(","):
                continue
            # In v2, all kinds share one tree.
            root = groups / kind if kinds else groups
            place = root / path.lstrip("/")
            while place == root or root in place.parents:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    if (found := read(place)) is not None:
                        yield found
                place = place.parent


def _quota(group: Path) -> float | None:
    """The quota of CPU time of a group, in cores."""
    if (group / "cpu.max").exists():
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    quota = (group / "cpu.cfs_quota_us").read_text()
    return None if int(quota) <= 0 else int(quota) / int((group / "cpu.cfs_period_us").read_text())


def _memory_of(group: Path) -> tuple[int, int] | None:
    """The limit of a group, and its use without cached files that the system can drop; in bytes."""
    is_v2 = (group / "memory.max").exists()
    limit = (group / ("memory.max" if is_v2 else "memory.limit_in_bytes")).read_text().strip()
    if limit == "max":
        return None
    used = int((group / ("memory.current" if is_v2 else "memory.usage_in_bytes")).read_text())
    droppable = _entries(group / "memory.stat").get("inactive_file" if is_v2 else "total_inactive_file", 0)
    return int(limit), max(0, used - droppable)


def _entries(path: Path) -> dict[str, int]:
    """Read a file that has a name and a number on each line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
