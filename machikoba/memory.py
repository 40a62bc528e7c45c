"""How much memory there is to take, and how much this process took."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import psutil

CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_mib() -> int:
    """Memory that this process could still take: what the machine has left and its container or unit allows."""
    return max(0, min([psutil.virtual_memory().available, *(limit - used for limit, used in _limits())]) >> 20)


def total_mib() -> int:
    """Memory of this machine, or of the container or unit that this process is in."""
    return min([psutil.virtual_memory().total, *(limit for limit, _used in _limits())]) >> 20


def _limits() -> list[tuple[int, int]]:
    """(limit, used) in bytes of each control group around this process that has a limit: Linux, version 2."""
    try:
        own = next(line[3:] for line in OWN_CGROUP.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    found, folder = [], CGROUPS / own.lstrip("/")
    while folder.is_relative_to(CGROUPS):
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such file at the root, "max" where there is no limit
            limit = int((folder / "memory.max").read_text(encoding="ascii"))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            cached = int(dict(line.split() for line in lines)["inactive_file"])  # is given up when memory is needed
            found.append((limit, int((folder / "memory.current").read_text(encoding="ascii")) - cached))
        folder = folder.parent
    return found


def peak_mib() -> int:
    """The most memory this process has held so far, in MiB."""
    if sys.platform == "linux":  # ru_maxrss would count what the process that started this one had held before
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) // 2**10
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset // 2**20)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10))


def give_back() -> None:
    """Returns freed memory to the system: a tokenizer takes more than the model (glibc keeps it otherwise)."""
    gc.collect()
    trim()


def trim() -> None:
    """Returns memory that is free already to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library: only the peak of memory is higher
            ctypes.CDLL("libc.so.6").malloc_trim(0)
