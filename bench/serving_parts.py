"""The parts of bench/serving.py that need no server, each a process of its own; prints one line of JSON.

    python bench/serving_parts.py PART ARGUMENTS.json
"""
from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

REPEATS, WARM = 20, 3  # of a batch; the first ones do not count
RANK = 16


def one_by_one(home: str, bundle: str, texts: list[str]) -> dict[str, Any]:
    """`predict` of one message after the other, in this process."""
    from machikoba.engine.runtime import Engine

    service = Engine(Path(home)).open(Path(bundle))
    for text in texts[:30]:
        service.predict([text])
    spent = []
    for text in texts:
        began = time.perf_counter()
        service.predict([text])
        spent.append(time.perf_counter() - began)
    return {"texts_per_second": round(len(spent) / sum(spent), 1), **_latency(spent)}


def growth(home: str, bundles: list[str], numbers: list[int], texts: list[str], asked: int, seed: int,
           resident_mib: int | None) -> dict[str, Any]:
    """One message asked of a random bundle while `numbers` of them are in use, and the memory that they take.

    resident_mib: bundles beyond it are dropped (None: the engine's own bound). All are asked once before anything counts.
    """
    from machikoba.engine.runtime import RESIDENT_MIB, Engine

    engine, draw, found = Engine(Path(home), resident_mib or RESIDENT_MIB), random.Random(seed), []
    first = engine.open(Path(bundles[0]))
    for text in texts:  # every length that there is has its scratch memory then
        first.predict([text])
    bare = _own_mib() - first.nbytes / 2**20  # Python, the base and its scratch memory, without any bundle
    for number in numbers:
        for i in range(number):
            engine.open(Path(bundles[i])).predict([texts[i % len(texts)]])
        spent = []
        for i in range(asked):
            began = time.perf_counter()
            engine.open(Path(bundles[draw.randrange(number)])).predict([texts[i % len(texts)]])
            spent.append(time.perf_counter() - began)
        own = _own_mib() - bare
        found.append({"bundles": number, **_latency(spent), "in_memory": len(engine._services), "updates": len(engine._updates),
                      "counted_mib": round(engine._kept_bytes / 2**20, 1), "own_mib": round(own, 1),
                      "mib_per_bundle": round(own / number, 3)})
    return {"resident_mib": resident_mib or RESIDENT_MIB, "lines": found}


def mates(home: str, bundles: list[str], texts: list[str], at_once: int) -> dict[str, Any]:
    """Every text alone, and beside others in batches mixed of all `bundles`, which share a base."""
    from machikoba.engine.runtime import Engine

    engine = Engine(Path(home))
    services = [engine.open(Path(bundle)) for bundle in bundles]
    found = {}
    alone = [[service.predict([text])[0] for text in texts] for service in services]
    together: list[list[Any]] = [[] for _ in services]
    share = at_once // len(services)
    for start in range(0, len(texts), share):
        # Each bundle's texts come from another place, so that a text's mates are not itself.
        parts = [(service, texts[start:start + share]) for service in services]
        for mine, predictions in zip(together, engine.answer(parts), strict=True):
            mine += predictions
    for bundle, before, after in zip(bundles, alone, together, strict=True):
        changes = [abs(a.confidence - b.confidence) for a, b in zip(before, after, strict=True)]
        found[Path(bundle).stem] = {
            "texts": len(texts), "largest_change": round(max(changes), 5), "above_0.01": sum(c > 0.01 for c in changes),
            "labels_changed": sum(a.label != b.label for a, b in zip(before, after, strict=True)),
            "decisions_changed": sum(a.would_answer != b.would_answer for a, b in zip(before, after, strict=True))}
    return found


def updates(home: str, base: str, folders: list[str]) -> dict[str, Any]:
    """Random updates of all linear layers in PEFT's layout, one set into each folder."""
    import torch

    from machikoba.base.load import find_base
    from machikoba.base.lora import LoraUpdates, Shape, linears_of
    from machikoba.base.speed import measured_speed
    from machikoba.base.trunk import Trunk

    trunk = Trunk(find_base(base, Path(home)), ("last",), measured_speed(Path(home)))
    made = LoraUpdates(trunk.model, linears_of(trunk.blocks()), Shape(RANK))
    draw = torch.Generator().manual_seed(0)
    for folder in folders:
        for parameter in made.parameters():
            parameter.data.normal_(0, 0.02, generator=draw)
        Path(folder).mkdir(parents=True)
        for name, content in made.save(base).items():
            (Path(folder) / name).write_bytes(content)
    return {}


def mixed(home: str, base: str, adapters: list[str], numbers: list[int], texts: list[str], peft: bool) -> dict[str, Any]:
    """A batch of `texts` read with 1, 8, … different updates, by base/shared.py or by PEFT's `adapter_names`."""
    import torch

    from machikoba.base.load import find_base
    from machikoba.base.shared import Reading, SharedTrunk
    from machikoba.base.speed import measured_speed
    from machikoba.base.tokens import TokenWeights

    speed, lines = measured_speed(Path(home)), []
    trunk = SharedTrunk(find_base(base, Path(home)), speed)
    if peft:
        from peft import PeftModel
        from transformers import AutoModel

        torch.set_num_threads(speed.threads)
        plain = AutoModel.from_pretrained(trunk.base.folder, dtype=getattr(torch, speed.dtype)).eval()
        model = PeftModel.from_pretrained(plain, adapters[0], adapter_name="0", autocast_adapter_dtype=False).eval()
        for i, folder in enumerate(adapters[1:max(numbers)], 1):
            model.load_adapter(folder, str(i), autocast_adapter_dtype=False)

        def read(number: int) -> np.ndarray:
            encoded = trunk.trunk.tokens(texts)
            width = max(map(len, encoded))
            ids = torch.tensor([[*row, *[trunk.trunk._padding] * (width - len(row))] for row in encoded])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in encoded])
            with torch.inference_mode():
                states = model(input_ids=ids, attention_mask=mask, adapter_names=[str(i % number) for i in range(len(texts))])
                weights = mask[..., None].float()
                return ((states.last_hidden_state.float() * weights).sum(1) / weights.sum(1)).numpy()
    else:
        flat = TokenWeights(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)
        readings = [Reading("last", flat, trunk.adapter(Path(folder))) for folder in adapters[:max(numbers)]]

        def read(number: int) -> np.ndarray:
            return np.stack(trunk.pool(texts, [readings[i % number] for i in range(len(texts))]))

    for number in numbers:
        spent = []
        for _ in range(WARM + REPEATS):
            began = time.perf_counter()
            features = read(number)
            spent.append(time.perf_counter() - began)
        seconds = sorted(spent[WARM:])[REPEATS // 2]
        lines.append({"adapters": number, "texts_per_second": round(len(texts) / seconds, 1), "ms": round(1e3 * seconds, 1),
                      "features": features.astype(float).round(5).tolist()})
    return {"dtype": speed.dtype, "threads": speed.threads, "lines": lines}


def _latency(spent: list[float]) -> dict[str, float]:
    ordered = sorted(spent)
    return {"p50_ms": round(1e3 * ordered[len(ordered) // 2], 3), "p99_ms": round(1e3 * ordered[len(ordered) * 99 // 100], 3)}


def _own_mib() -> float:
    """Memory that would be free without this process (unique set size)."""
    import ctypes
    import gc

    import psutil

    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed is not counted
    return float(psutil.Process().memory_full_info().uss) / 2**20


if __name__ == "__main__":
    parts = {part.__name__: part for part in (one_by_one, growth, mates, updates, mixed)}
    print(json.dumps(parts[sys.argv[1]](**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
