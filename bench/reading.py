"""One short message through a base: as Transformers has its blocks, with blocks written out, and directly (base/direct.py).

    python bench/reading.py      two minutes

Median milliseconds from text to features of hotel messages (asdc_l1), the ways in turn; and the large products by themselves,
for 16 tokens, with the weights as they are and laid out beforehand.
"""
from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import DATA, rows, write_result

from machikoba.base.load import find_base
from machikoba.base.lora import linears_of
from machikoba.base.product import Product, Rows
from machikoba.base.speed import measured_speed
from machikoba.base.trunk import Trunk

BASES, TOKENS, ROUNDS, MESSAGES = ("multilingual-e5-small", "gemma-3-270m"), 16, 8, 60


def milliseconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return 1_000 * (time.perf_counter() - began)


def products(trunk: Trunk) -> dict[str, float]:
    """Every large product of the blocks, one after the other."""
    linears = linears_of(trunk.blocks())
    laid_out = [Product({name: linear}, Rows()) for name, linear in linears.items()]
    inputs = {linear.in_features: torch.randn(TOKENS, linear.in_features).to(linear.weight.dtype) for linear in linears.values()}
    found: dict[str, list[float]] = {"as_they_are": [], "laid_out": []}
    with torch.inference_mode():
        for _round in range(3 * ROUNDS):
            for name, layers in (("as_they_are", list(linears.values())), ("laid_out", laid_out)):
                found[name].append(milliseconds(lambda some=layers: [one(inputs[one.in_features]) for one in some]))  # type: ignore[misc]
    return {name: round(statistics.median(times), 2) for name, times in found.items()}


def read(name: str, home: Path, texts: list[str]) -> dict[str, Any]:
    base, speed = find_base(name, home), measured_speed(home)
    ways = {"transformers": Trunk(base, ("last",), speed), "written_out": Trunk(base, ("last",), speed, reading=True),
            "directly": Trunk(base, ("last",), speed, reading=True)}
    weights = ways["transformers"].learn_weights(texts)
    for way in ways.values():
        way.pool(texts[:1], weights)
    ways["written_out"]._direct = None
    found: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(ROUNDS + 2):
        for way, trunk in ways.items():
            times = [milliseconds(lambda text=text, one=trunk: one.pool([text], weights)) for text in texts]  # type: ignore[misc]
            if round_ > 1:  # every length was met before
                found[way] += times
    line = {"base": name, "dtype": speed.dtype, "threads": speed.threads,
            "milliseconds": {way: round(statistics.median(times), 2) for way, times in found.items()},
            "products": products(ways["transformers"])}
    print(line, flush=True)
    return line


def main() -> None:
    texts = [text for text, _label in rows(DATA / "asdc_l1" / "test.csv")][:MESSAGES]
    with tempfile.TemporaryDirectory() as home:
        write_result("reading", {"tokens": TOKENS, "lines": [read(name, Path(home), texts) for name in BASES]})


if __name__ == "__main__":
    main()
