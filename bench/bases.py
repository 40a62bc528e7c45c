"""Each base that is here: how long unpacking takes, its peak memory, how many tokens a second it reads, and against the
speed of a bare matrix product of the same number format in the same run.

    python bench/bases.py      about four minutes, half of it unpacking

The memory in base/catalog.toml is the peak of `reading` here, Python and PyTorch included.
"""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import DATA, ROOT, rows, write_result

READ = """
import json, sys, time
from pathlib import Path
from machikoba.base.load import find_base
from machikoba.base.speed import measured_speed
from machikoba.base.trunk import Trunk
from machikoba.memory import peak_mib
name, home, texts = sys.argv[1], Path(sys.argv[2]), json.load(open(sys.argv[3]))
began = time.monotonic()
base = find_base(name, home)
found = {"found_seconds": round(time.monotonic() - began, 1)}
if len(sys.argv) > 4:
    speed = measured_speed(home)
    trunk = Trunk(base, base.layers, speed)
    weights = trunk.learn_weights(texts)
    trunk.pool(texts[:64], weights)
    began = time.monotonic()
    trunk.pool(texts, weights)
    seconds, tokens = time.monotonic() - began, trunk.count_tokens(texts)
    found |= {"dtype": speed.dtype, "threads": speed.threads, "tokens_per_second": round(tokens / seconds),
              "gigaflops": round(tokens * base.megaflops_per_token / seconds / 1e3),
              "bare_product_gigaflops": round(speed.gigaflops)}
print(json.dumps(found | {"peak_mib": peak_mib()}))
"""


def main() -> None:
    from machikoba.base.catalog import available

    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        texts = Path(temporary) / "texts.json"
        texts.write_text(json.dumps([text for text, _label in rows(DATA / "asdc_l1" / "test.csv")][:800]), encoding="utf-8")
        for name in available():
            steps = {}
            for step, more in (("unpacking", []), ("reading", ["read"])):
                done = subprocess.run([sys.executable, "-c", READ, name, temporary, str(texts), *more], cwd=ROOT, check=True,
                                      stdout=subprocess.PIPE, text=True)
                steps[step] = json.loads(done.stdout.strip().splitlines()[-1])
            found[name] = steps
            print(name, steps, flush=True)
    write_result("bases", {"bases": found})


if __name__ == "__main__":
    main()
