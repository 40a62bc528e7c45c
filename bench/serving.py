"""Bundles at work: requests a second and their latency through the server, one base for many bundles, batch mates.

    python bench/serving.py [--short]      about thirteen minutes; --short: a tenth of the repetitions, to try it out

server: `machikoba serve` on loopback with a key, asked by 1, 8 and 64 clients (bench/load.py), one message a request; beside
it the same server when its lane takes one text at a time, and `predict` of one text after the other in a process without a
server. peft: a batch of 64 messages over 1, 8 and 64 sets of updates, beside PEFT's mixed batches (`adapter_names`), on the
same tokens, number format and threads. bundles: 1 to 1,000 on one base, as `_copies` says what they are: latency of a message
asked of a random one, and memory, with the engine's bound and without. mates: how far a confidence moves with the messages
that are read beside it. Messages are hotel messages (asdc_l1), bundles tuned on 32 of each kind; the one whose base trained,
on 8.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from harness import DATA, ROOT, draw, machikoba, rows, write_result, write_rows

from machikoba.pack.bundle import seal, write_file

CLIENTS, NUMBERS, ADAPTERS = (1, 8, 64), (1, 10, 100, 1_000), (1, 8, 64)
SERVED = {"words": "words", "features": "features", "gemma": "features"}
BASES = {"features": "multilingual-e5-small", "lora": "multilingual-e5-small", "gemma": "gemma-3-270m"}
ENDLESS_MIB = 1 << 20
ONE_AT_A_TIME = "import machikoba.engine.lanes as lanes; lanes.AT_ONCE = 1; from machikoba.cli import main; main()"
ENVIRONMENT = {"MACHIKOBA_LANG": "en", "HF_HUB_OFFLINE": "1"}


def part(name: str, folder: Path, **arguments: Any) -> Any:
    """One part of serving_parts.py, in a process of its own."""
    file = folder / "arguments.json"
    file.write_text(json.dumps({"home": str(folder / "home"), **arguments}, default=str), encoding="utf-8")
    done = subprocess.run([sys.executable, str(ROOT / "bench" / "serving_parts.py"), name, str(file)], check=True, cwd=ROOT,
                          stdout=subprocess.PIPE, env=os.environ | ENVIRONMENT)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def serving(home: Path, one_at_a_time: bool) -> Iterator[int]:
    """The port of `machikoba serve`, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-c", ONE_AT_A_TIME] if one_at_a_time else ["-m", "machikoba"]
    server = subprocess.Popen([sys.executable, *command, "serve", "--port", str(port), "--no-worker"], cwd=ROOT,
                              stdout=subprocess.DEVNULL, env=os.environ | ENVIRONMENT | {"MACHIKOBA_HOME": str(home)})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz")
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(60)


def served(folder: Path, texts: Path, seconds: float) -> dict[str, Any]:
    """Requests a second through the server, batching and not."""
    home = folder / "home"
    key = machikoba("key", "bench", home=home)["key"]
    found: dict[str, Any] = {}
    for name in ("batched", "one_at_a_time"):
        with serving(home, name == "one_at_a_time") as port:
            for bundle in SERVED:
                ask = urllib.request.Request(f"http://127.0.0.1:{port}/v1/bundles/{bundle}/predict", b'{"texts": ["a"]}',
                                             {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
                for _ in range(3):  # the first one loads the base
                    urllib.request.urlopen(ask, timeout=60).read()
                lines = []
                for clients in CLIENTS if bundle != "gemma" else CLIENTS[:1]:
                    command = [sys.executable, str(ROOT / "bench" / "load.py"), *map(str, (port, key, bundle, texts, clients,
                                                                                           seconds))]
                    lines.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
                    print(bundle, name, lines[-1], flush=True)
                found.setdefault(bundle, {})[name] = lines
    return found


def mixed(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Our mixed batches and PEFT's, and how alike what they give is."""
    adapters = [folder / "adapters" / str(i) for i in range(max(ADAPTERS))]
    part("updates", folder, base=BASES["lora"], folders=adapters)
    ours, theirs = (part("mixed", folder, base=BASES["lora"], adapters=adapters, numbers=ADAPTERS, texts=texts, peft=peft)
                    for peft in (False, True))
    lines = []
    for mine, peer in zip(ours["lines"], theirs["lines"], strict=True):
        a, b = (np.array(one.pop("features")) for one in (mine, peer))
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        lines.append({"adapters": mine["adapters"], "ours": mine["texts_per_second"], "peft": peer["texts_per_second"],
                      "ratio": round(mine["texts_per_second"] / peer["texts_per_second"], 2),
                      "least_cosine": round(float(cosines.min()), 4)})
        print("mixed", lines[-1], flush=True)
    return {"dtype": ours["dtype"], "threads": ours["threads"], "rows": len(texts), "lines": lines}


def _copies(source: Path, folder: Path, number: int) -> list[Path]:
    """Bundles with the weights of `source` (hard links to them) under names, facts and manifests of their own."""
    made = []
    for i in range(number):
        copy = folder / f"{source.stem}-{i}.bundle"
        shutil.copytree(source, copy, copy_function=os.link)
        (copy / "bundle.json").unlink()
        facts = json.loads((source / "bundle.json").read_bytes())
        write_file(copy, "bundle.json", facts | {"copy": i})
        (copy / "MANIFEST.sha256").unlink()
        seal(copy)
        made.append(copy)
    return made


def growing(folder: Path, texts: list[str], short: bool) -> dict[str, Any]:
    """Latency and memory against the number of bundles."""
    numbers, asked, found = NUMBERS[:3] if short else NUMBERS, 100 if short else 1_000, {}
    for kind in ("features", "lora"):
        bundles = _copies(folder / "home" / "bundles" / f"{kind}.bundle", folder / "copies", max(numbers))
        for name, most in (("bounded", None), ("unbounded", ENDLESS_MIB)):
            grown = part("growth", folder, bundles=bundles, numbers=numbers, texts=texts, asked=asked, seed=0, resident_mib=most)
            for line in grown["lines"]:
                line["slower"] = round(line["p50_ms"] / grown["lines"][0]["p50_ms"], 3)
                print(kind, name, line, flush=True)
            found.setdefault(kind, {})[name] = grown
        shutil.rmtree(folder / "copies")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "home"
        messages = [text for text, _label in rows(DATA / "asdc_l1" / "test.csv")]
        texts, some = folder / "texts.json", messages[:30 if short else 300]
        texts.write_text(json.dumps(messages, ensure_ascii=False), encoding="utf-8")
        for name in ("words", "features", "lora", "gemma"):
            train = write_rows(folder / f"{name}.csv", draw("asdc_l1", 8 if name == "lora" else 32, 0))
            base = ["--base", BASES[name]] if name in BASES else []
            machikoba("tune", train, "--rungs", SERVED.get(name, name), *base, "--holdout", "none", "--out",
                      home / "bundles" / f"{name}.bundle", home=home)
        found: dict[str, Any] = {"one_by_one": {
            name: part("one_by_one", folder, bundle=home / "bundles" / f"{name}.bundle", texts=some) for name in SERVED}}
        print(found["one_by_one"], flush=True)

        def keep() -> None:  # after each part: it takes long
            if not short:
                write_result("serving", found)

        found["server"] = served(folder, texts, 1.0 if short else 8.0)
        found["overhead_ms"] = {name: round(asked["batched"][0]["p50_ms"] - found["one_by_one"][name]["p50_ms"], 2)
                                for name, asked in found["server"].items()}
        keep()
        found["peft"] = mixed(folder, messages[:64])
        keep()
        found["bundles"] = growing(folder, messages[:1_000], short)
        keep()
        found["mates"] = {}
        for together in (["features", "lora"], ["gemma"]):
            bundles = [home / "bundles" / f"{name}.bundle" for name in together]
            found["mates"] |= part("mates", folder, bundles=bundles, texts=some, at_once=64)
        print(found["overhead_ms"], found["mates"])
        keep()


if __name__ == "__main__":
    main()
