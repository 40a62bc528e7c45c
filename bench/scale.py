"""Large files: `machikoba check` and `machikoba predict` on 100,000 real comments, seconds and peak memory; with the model
on 20,000 of them, which shows the pace.

    python bench/scale.py      about five minutes

The rows are visitors' comments from Fukui (fukui_comments_to_2025, CC BY 4.0 by the Fukui tourism federation); as a limit of
the machine, the seconds that Python takes to read and NFKC-normalise the same file stand beside.
"""
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

from harness import DATA, ROOT, draw, machikoba, write_result, write_rows

ROWS = 100_000
ROWS_FOR_A_MODEL = 20_000
MEASURE = """
import json, runpy, sys, time
from machikoba.memory import peak_mib
sys.argv = ["machikoba", *sys.argv[1:]]
began = time.monotonic()
try:
    runpy.run_module("machikoba", run_name="__main__")
finally:
    print(json.dumps({"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time(), 1),
                      "peak_mib": peak_mib()}), file=sys.stderr)
"""


def measured(*arguments: str | Path, home: Path) -> dict[str, Any]:
    """Seconds on the clock, of the processor, and peak memory of one command."""
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, arguments), "--json"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=True, cwd=ROOT,
                          env=os.environ | {"MACHIKOBA_HOME": str(home), "HF_HUB_OFFLINE": "1"})
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


def plain_reading(path: Path) -> float:
    began = time.monotonic()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            for cell in row:
                unicodedata.normalize("NFKC", cell)
    return round(time.monotonic() - began, 2)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (source,) = (DATA / "fukui_comments_to_2025").glob("*.csv")
        with source.open(encoding="utf-8", newline="") as file:
            comments = [(row["text"], row["satisfaction"]) for row, _n in zip(csv.DictReader(file), range(ROWS), strict=False)]
        data = write_rows(folder / "comments.csv", comments)
        found: dict[str, Any] = {"rows": len(comments), "plain_reading_seconds": plain_reading(data)}
        found["check"] = measured("check", data, home=folder)
        train = write_rows(folder / "train.csv", draw("asdc_l1", 32, 0))
        for rung, options in (("words", ["--rungs", "words"]), ("features", ["--rungs", "features"])):
            bundle = folder / f"{rung}.bundle"
            machikoba("tune", train, *options, "--holdout", "none", "--out", bundle, home=folder)
            part = comments if rung == "words" else comments[:ROWS_FOR_A_MODEL]
            file = write_rows(folder / f"{rung}.csv", part)
            found[f"predict_{rung}"] = {"rows": len(part)} | measured(
                "predict", bundle, file, "--text", "text", "--out", folder / "out.csv", home=folder)
        for name, value in found.items():
            print(name, value)
        write_result("scale", found)


if __name__ == "__main__":
    main()
