"""Large files in bounded memory. How fast is measured in bench/, never here."""
from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys

import pytest

import machikoba
from tests.conftest import ENDINGS, WORDS, messages, write_csv

pytestmark = pytest.mark.slow
MEASURE = """
import runpy, sys
from machikoba.memory import peak_mib
sys.argv = ["machikoba", *sys.argv[1:]]
try:
    runpy.run_module("machikoba", run_name="__main__")
finally:
    print(peak_mib(), file=sys.stderr)
"""


def peak_of(*arguments: object) -> tuple[int, dict]:
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, arguments), "--json"], capture_output=True, text=True,
                          env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1]), json.loads(done.stdout)


def long_file(path, n):
    draw = random.Random(0)
    kinds = list(WORDS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label"])
        for i in range(n):
            kind = draw.choice(kinds)
            words = "".join(draw.choices(WORDS[kind].split(), k=6))
            text = words + draw.choice(ENDINGS) + chr(0x4E00 + draw.randrange(20_000)) * 3
            writer.writerow([i, text, kind])
    return path


def test_check_of_100_000_rows(tmp_path):
    mib, found = peak_of("check", long_file(tmp_path / "a.csv", 100_000))
    assert found["messages"] == 100_000
    assert mib < 1_024


def test_predict_streams_100_000_rows(tmp_path):
    bundle = machikoba.tune(write_csv(tmp_path / "t.csv", messages(200)), tmp_path / "a.bundle", rungs=("words",)).path
    few, _ = peak_of("predict", bundle, long_file(tmp_path / "few.csv", 5_000), "--out", tmp_path / "few_out.csv")
    many, found = peak_of("predict", bundle, long_file(tmp_path / "many.csv", 100_000), "--out", tmp_path / "out.csv")
    assert found["rows"] == 100_000
    assert many < few + 64
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(i) for i in range(100_000)]
    assert list(rows[0]) == ["id", "text", "label", "prediction", "confidence", "answered", "would_answer"]
