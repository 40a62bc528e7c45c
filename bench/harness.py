"""What all measurements share: the public rows, the commands as users run them, and how results are written.

Every run is a process of its own, so that its peak memory is its own; rows are drawn by the peers' own script where
peers take part, so that all see the same.
"""
from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MACHIKOBA_DATA", ROOT.parent / "shared" / "data"))
PEERS = Path(os.environ.get("MACHIKOBA_PEERS", ROOT.parent / "shared" / "peers"))
RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = ("machikoba", "numpy", "scipy", "scikit-learn", "torch", "transformers")


def draw(dataset: str, per_label: int, seed: int) -> list[tuple[str, str]]:
    """`per_label` training rows of each label, as the peers' common.py draws them."""
    import pandas as pd

    train = pd.read_csv(DATA / dataset / "train.csv").sample(frac=1, random_state=seed)
    train = train.groupby("label").head(per_label).sort_values(["label", "text"])
    return list(train[["text", "label"]].itertuples(index=False, name=None))


def rows(path: Path) -> list[tuple[str, str]]:
    """All rows of a public CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_rows(path: Path, some: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *some])
    return path


def machikoba(*arguments: str | Path, home: Path) -> dict[str, Any]:
    """The JSON object that `machikoba ARGUMENTS --json` prints. Raises on a failed command."""
    done = subprocess.run(
        [sys.executable, "-m", "machikoba", *map(str, arguments), "--json"], stdout=subprocess.PIPE, check=True, cwd=ROOT,
        env=os.environ | {"MACHIKOBA_HOME": str(home), "MACHIKOBA_LANG": "en", "HF_HUB_OFFLINE": "1"})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def unpack(base: str, home: Path) -> None:
    """Unpacks a base in a process of its own: that takes more memory than what is measured."""
    code = "import sys, pathlib; from machikoba.base.load import find_base; find_base(sys.argv[1], pathlib.Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, base, str(home)], check=True, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def machine() -> dict[str, Any]:
    """The processor, its cores, its memory and what PyTorch uses of it."""
    import psutil
    import torch

    from machikoba.base.speed import machine as processor

    return {"processor": processor(), "cores": os.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "instructions": torch.backends.cpu.get_cpu_capability(), "system": platform.platform(terse=True),
            "python": platform.python_version()}


def write_result(name: str, found: dict[str, Any]) -> None:
    """bench/results/NAME.json: what was measured, where, with which versions, by which command."""
    facts = {"command": " ".join(["python", *(os.path.relpath(a, ROOT) if Path(a).exists() else a for a in sys.argv)]),
             "date": datetime.now(UTC).date().isoformat(), "machine": machine(),
             "versions": {library: version(library) for library in LIBRARIES}}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(facts | found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"written {path.relative_to(ROOT)}")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, least and most of some runs."""
    return {"mean": round(sum(values) / len(values), 4), "least": round(min(values), 4), "most": round(max(values), 4)}
