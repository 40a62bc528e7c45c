"""How time and memory grow: with the number of messages, their length, and the number of kinds.

    python bench/growth.py [rows] [labels] [length]      about forty minutes; what is not asked for keeps its last figures

Messages are visitors' comments from Fukui (fukui_comments_to_2025, CC BY 4.0 by the Fukui tourism federation), their kind
whether the visitor was satisfied, neither, or dissatisfied; for many kinds how satisfied, together with the area. Each figure
is a process of its own, from file to bundle; lengths are one model's time for one token in texts of that many tokens.
"""
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import DATA, RESULTS, ROOT, machikoba, unpack, write_result, write_rows

LEVELS = {"とても満足": "満足", "満足": "満足", "どちらでもない": "どちらでもない", "不満": "不満", "とても不満": "不満"}
ROWS = (300, 1_000, 3_000, 10_000, 30_000, 100_000)
TRAINED_ROWS = (300, 1_000, 3_000)  # training takes minutes where reading takes seconds
LABELS = (2, 5, 10, 50, 150, 500)
ROWS_FOR_LABELS = 5_000
LENGTHS = (16, 32, 64, 128, 256, 512, 1_024, 2_048)
TOKENS = 8_192  # read at each length
LENGTH = """
import json, sys, time
from pathlib import Path
import numpy as np
from machikoba.base.load import find_base
from machikoba.base.lora import LoraUpdates, Shape, linears_of
from machikoba.base.speed import measured_speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk
from machikoba.memory import peak_mib
base, home, length, tokens = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
trunk = Trunk(find_base(base, home), ("last",), measured_speed(home))
flat = TokenWeights(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)
texts = np.random.default_rng(0).integers(200, trunk.vocabulary - 200, (tokens // length, length)).tolist()
trunk.drop_tokenizer()
trunk.pool_tokens(texts, flat)
began = time.monotonic(); trunk.pool_tokens(texts, flat); reading = time.monotonic() - began
peak = peak_mib()
updates = LoraUpdates(trunk.model, linears_of(trunk.blocks()), Shape())
def train():
    size = max(1, 480 // length)
    for start in range(0, len(texts) // 2, size):
        trunk.forward(texts[start:start + size], flat.of).pow(2).sum().backward()
training = None
if length <= 512:
    train(); began = time.monotonic(); train(); training = time.monotonic() - began
print(json.dumps({"tokens": length, "read_microseconds": round(1e6 * reading / tokens, 1), "peak_mib": peak,
    "train_microseconds": training and round(2e6 * training / tokens, 1), "train_peak_mib": peak_mib() if training else None}))
"""


def comments() -> list[tuple[str, str, str]]:
    """Text, area and satisfaction."""
    with (DATA / "fukui_comments_to_2025" / "comments.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["area"], row["satisfaction"]) for row in csv.DictReader(file) if row["text"].strip()]


def tuned(some: list[tuple[str, str]], rungs: str, folder: Path) -> dict[str, Any]:
    """What tuning on these rows takes."""
    data = write_rows(folder / "data.csv", some)
    out = folder / "made.bundle"
    made = machikoba("tune", data, "--rungs", rungs, "--holdout", "none", "--target-coverage", "0.999", "--out", out,
                     home=folder / "home")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    cost = made["cost"]
    found = {"rows": len(some), "labels": len({label for _text, label in some}), "rungs": rungs, "wall_s": cost["wall_seconds"],
             "cpu_s": cost["cpu_seconds"], "peak_mib": cost["peak_mib"], "right": round(made["test"]["accuracy"], 4)}
    print(found, flush=True)
    return found


def by_rows(everything: list[tuple[str, str, str]], folder: Path) -> list[dict[str, Any]]:
    found, plain = [], [(text, LEVELS[satisfied]) for text, _area, satisfied in everything]
    for n in ROWS:
        some = plain[::max(1, len(plain) // n)][:n]
        found.append(tuned(some, "words,features", folder))
        if n in TRAINED_ROWS:
            found.append(tuned(some, "lora", folder))
    return found


def by_labels(everything: list[tuple[str, str, str]], folder: Path) -> list[dict[str, Any]]:
    found, kinds = [], Counter(f"{area} {satisfied}" for _text, area, satisfied in everything)
    for k in LABELS:
        of: dict[str, list[tuple[str, str]]] = {kind: [] for kind, _n in kinds.most_common(k)}
        for text, area, satisfied in everything:
            if (kind := f"{area} {satisfied}") in of and len(of[kind]) < ROWS_FOR_LABELS // k:
                of[kind].append((text, kind))
        found.append(tuned([row for rows in of.values() for row in rows], "words,features", folder))
    return found


def by_length(_everything: object, folder: Path) -> list[dict[str, Any]]:
    found = []
    for base, longest in (("gemma-3-270m", LENGTHS[-1]), ("multilingual-e5-small", 512)):
        unpack(base, folder / "home")
        for length in LENGTHS:
            if length <= longest:
                command = [sys.executable, "-c", LENGTH, base, str(folder / "home"), str(length), str(TOKENS)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT,
                                      env=os.environ | {"HF_HUB_OFFLINE": "1"})
                found.append({"base": base, **json.loads(done.stdout.splitlines()[-1])})
                print(found[-1], flush=True)
    return found


PARTS = {"rows": by_rows, "labels": by_labels, "length": by_length}


def main() -> None:
    known = RESULTS / "growth.json"
    found = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for part in sys.argv[1:] or PARTS:
            found[part] = PARTS[part](comments(), Path(temporary))
            write_result("growth", {part: found[part] for part in PARTS if part in found})


if __name__ == "__main__":
    main()
