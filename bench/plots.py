"""Draws bench/results for README and docs: docs/img/*.svg.

    python bench/plots.py
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import altair

ROOT = Path(__file__).resolve().parent.parent
RESULTS, IMAGES = ROOT / "bench" / "results", ROOT / "docs" / "img"
SIZE = {"width": 420, "height": 260}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def save(chart: Any, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    chart.configure_axis(labelFontSize=12, titleFontSize=12).configure_legend(labelFontSize=12, labelLimit=320).save(
        IMAGES / f"{name}.svg")
    print(f"drawn docs/img/{name}.svg")


def quality() -> None:
    """Share right against seconds of processor, ours and the peers', hotel messages with 32 examples per kind."""
    found, tuner = load("classify"), load("tuner")["runs"]
    points = [{"what": f"machikoba, {line['base'] or 'words only'}", "cpu": line["cpu_seconds"]["mean"],
               "right": line["accuracy"]["mean"]} for line in found["summary"]
              if line["dataset"] == "asdc_l1" and line["per_label"] == 32]
    for name, base in (("gemma", "Gemma 3 270M"), ("e5", "multilingual-e5-small")):
        ours, theirs = tuner[name]["ours"], tuner[name]["peer"]
        points += [{"what": f"machikoba, {base} tuned", "cpu": ours["train_cpu_s"], "right": ours["accuracy"]},
                   {"what": f"PEFT LoRA, {base}", "cpu": theirs["train_cpu_s"], "right": theirs["accuracy"]}]
    base = altair.Chart(altair.Data(values=points))
    chart = base.mark_point(size=90, filled=True).encode(
        x=altair.X("cpu:Q", scale=altair.Scale(type="log"), title="CPU-seconds of training (log)"),
        y=altair.Y("right:Q", scale=altair.Scale(zero=False), axis=altair.Axis(format="%"), title="right on all test messages"),
        color=altair.Color("what:N", title=None))
    save(chart.properties(**SIZE), "quality")


def growth() -> None:
    """Seconds and memory against rows, labels and length."""
    found = load("growth")
    parts = [(found["rows"], "rows", "messages", "wall_s", "seconds"), (found["rows"], "rows", "messages", "peak_mib", "MiB"),
             (found["labels"], "labels", "kinds", "wall_s", "seconds"), (found["labels"], "labels", "kinds", "peak_mib", "MiB")]
    charts = []
    for values, x, x_title, y, y_title in parts:
        charts.append(altair.Chart(altair.Data(values=values)).mark_line(point=True).encode(
            x=altair.X(f"{x}:Q", scale=altair.Scale(type="log"), title=x_title),
            y=altair.Y(f"{y}:Q", scale=altair.Scale(type="log" if y == "wall_s" else "linear"), title=y_title),
            color=altair.Color("rungs:N", title="steps")).properties(width=280, height=180))
    for y, y_title in (("read_microseconds", "µs per token, read"), ("peak_mib", "MiB")):
        charts.append(altair.Chart(altair.Data(values=found["length"])).mark_line(point=True).encode(
            x=altair.X("tokens:Q", scale=altair.Scale(type="log", base=2), title="tokens of a text"),
            y=altair.Y(f"{y}:Q", title=y_title), color=altair.Color("base:N", title="base")).properties(width=280, height=180))
    save(altair.concat(*charts, columns=2).resolve_scale(color="independent"), "growth")


def serving() -> None:
    """Requests a second against clients, ours and PEFT's mixed batches, and what many bundles on one base take."""
    found = load("serving")
    served = [{"what": f"{bundle}, {name.replace('_', ' ')}", "clients": line["clients"], "rate": line["requests_per_second"]}
              for bundle, ways in found["server"].items() for name, lines in ways.items() if len(lines) > 1 for line in lines]
    mixed = [{"what": name, "adapters": line["adapters"], "rate": line[name]} for line in found["peft"]["lines"]
             for name in ("ours", "peft")]
    grown = [{"what": f"{kind}, {name}", **line} for kind, ways in found["bundles"].items() for name, way in ways.items()
             for line in way["lines"]]
    parts = [(served, "clients", "clients", "rate", "requests a second"),
             (mixed, "adapters", "sets of updates in a batch of 64", "rate", "messages a second"),
             (grown, "bundles", "bundles in use", "slower", "median latency, of that with one"),
             (grown, "bundles", "bundles in use", "own_mib", "MiB that they take")]
    charts = [altair.Chart(altair.Data(values=values)).mark_line(point=True).encode(
        x=altair.X(f"{x}:Q", scale=altair.Scale(type="log"), title=x_title),
        y=altair.Y(f"{y}:Q", scale=altair.Scale(type="linear" if y == "slower" else "log"), title=y_title),
        color=altair.Color("what:N", title=None)).properties(width=280, height=180) for values, x, x_title, y, y_title in parts]
    save(altair.concat(*charts, columns=2).resolve_scale(color="independent"), "serving")


if __name__ == "__main__":
    for name, draw in {"tuner": quality, "growth": growth, "serving": serving}.items():
        if (RESULTS / f"{name}.json").exists():
            draw()
        else:
            print(f"bench/results/{name}.json has not been measured yet")
