"""Which number format and how many threads this machine runs the model with: measured once, then remembered."""
from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from machikoba import files
from machikoba.errors import StorageError
from machikoba.language import _

SIZE = 512  # of the measured matrices: like one layer of a small model on one batch
GPU_SIZE = 4_096
ATTEMPTS = 40  # the best counts, so that what else the machine is doing does not
WORTHWHILE = 1.3  # bfloat16 must be this much faster: it rounds more


@dataclass(frozen=True)
class Speed:
    """dtype: "float32" or "bfloat16". reason: why, with the measured figures. gigaflops: of a 512³ product in it (on a GPU:
    4,096³). device: "cpu" or "cuda"."""

    dtype: str
    threads: int
    reason: str
    gigaflops: float
    device: str = "cpu"


def measured_speed(home: Path) -> Speed:
    """The choice for this machine, from `home`/cache/speed.json or measured now (under a second)."""
    threads = int(os.environ.get("MACHIKOBA_THREADS", 0)) or _cores()
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and os.environ.get("MACHIKOBA_DEVICE") != "cpu" else ""
    key = f"{machine()}/{threads}/{torch.__version__}/{torch.backends.cpu.get_cpu_capability()}/{gpu}".rstrip("/")
    path = home / "cache" / "speed.json"
    known = _remembered(path)
    with contextlib.suppress(KeyError, TypeError):
        return Speed(**known[key])
    speed = _measure_gpu(threads, gpu) if gpu else _measure(threads)
    with contextlib.suppress(StorageError), files.draft_file(path) as draft:  # a read-only home only costs the measurement
        files.write(draft, json.dumps({**known, key: asdict(speed)}, ensure_ascii=False).encode())
    return speed


def _remembered(path: Path) -> dict[str, Any]:
    """What was measured before, by setting."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _cores() -> int:
    """Cores that this process may use."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return min(cores, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else cores


def _measure(threads: int) -> Speed:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.ones(SIZE, SIZE, dtype=dtype) for _i in range(2))
        best = float("inf")
        for _attempt in range(ATTEMPTS):
            start = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - start)
        seconds[dtype] = best
    torch.set_num_threads(before)
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    flops = 2 * SIZE**3 / 1e9
    if ratio >= WORTHWHILE:
        reason = _("bfloat16: measured {ratio} times as fast as float32 on this machine").format(
            ratio=f"{ratio:.1f}")
        return Speed("bfloat16", threads, reason, flops / seconds[torch.bfloat16])
    reason = _("float32: bfloat16 measured only {ratio} times as fast on this machine").format(ratio=f"{ratio:.1f}")
    return Speed("float32", threads, reason, flops / seconds[torch.float32])


def _measure_gpu(threads: int, name: str) -> Speed:
    import torch

    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    square = torch.ones(GPU_SIZE, GPU_SIZE, dtype=dtype, device="cuda")
    best = float("inf")
    for _attempt in range(ATTEMPTS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        square @ square
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    form = str(dtype).removeprefix("torch.")
    return Speed(form, threads, _("{dtype} on {gpu}").format(dtype=form, gpu=name), 2 * GPU_SIZE**3 / 1e9 / best, "cuda")


@lru_cache(maxsize=1)
def machine() -> str:
    """The processor's name: what decides, with the versions of the libraries, how numbers are rounded."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
