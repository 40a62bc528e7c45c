"""How much memory there is to take, and how much this process took."""
from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import psutil


def available_mib() -> int:
    """Memory that programs could still take on this machine."""
    return int(psutil.virtual_memory().available // 2**20)


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
