"""Do the estimates hold? Every step alone, from file to bundle, on five public sets and two bases: seconds told and taken.

    python bench/estimates.py      about thirty-five minutes

An estimate holds within 30% or 3 seconds. What would take long is told again after a dry run of two batches, before it starts.
"""
from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

from harness import DATA, draw, machikoba, rows, write_result, write_rows

BASES = ("multilingual-e5-small", "all-minilm-l6-v2")
RUNGS = ("words", "features", "top", "lora")
SHARE, SECONDS = 0.3, 3.0
FUKUI_ROWS = 1_500


def sets() -> dict[str, list[tuple[str, str]]]:
    """Five sets of different sizes, languages, lengths and numbers of labels."""
    with (DATA / "fukui_comments_to_2025" / "comments.csv").open(encoding="utf-8", newline="") as file:
        comments = [(row["text"], row["satisfaction"]) for row in csv.DictReader(file) if row["text"].strip()]
    return {"asdc_l1, 32": draw("asdc_l1", 32, 0), "banking77, 8": draw("banking77", 8, 0),
            "sib200_ja, all": rows(DATA / "sib200_ja" / "train.csv"), "clinc150, 20": draw("clinc150", 20, 0),
            f"fukui, {FUKUI_ROWS:,}": comments[::len(comments) // FUKUI_ROWS][:FUKUI_ROWS]}


def holds(told: float, taken: float) -> bool:
    return abs(told - taken) <= max(SHARE * taken, SECONDS)


def main() -> None:
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "home"
        for name, some in sets().items():
            data = write_rows(folder / "data.csv", some)
            for base in BASES:
                for rung in RUNGS:
                    if rung == "words" and base != BASES[0]:
                        continue
                    out = folder / f"{len(found)}.bundle"
                    made = machikoba("tune", data, "--rungs", rung, "--base", base, "--holdout", "none", "--out", out, home=home)
                    step = made["ladder"][0]
                    told, taken = step["estimate"]["wall_seconds"], step["wall_seconds"]
                    again = step["rehearsed"]["wall_seconds"] if step["rehearsed"] else None
                    found.append({
                        "set": name, "rows": len(some), "base": step["base"], "rung": rung, "told": told, "again": again,
                        "taken": round(taken, 1), "told_mib": step["estimate"]["peak_mib"], "taken_mib": step["peak_mib"],
                        "holds": holds(told, taken), "holds_again": holds(again if again else told, taken)})
                    print(found[-1], flush=True)
    write_result("estimates", {
        "within": {"share": SHARE, "seconds": SECONDS}, "steps": len(found),
        "hold": round(sum(run["holds"] for run in found) / len(found), 3),
        "hold_after_the_dry_run": round(sum(run["holds_again"] for run in found) / len(found), 3),
        "memory_enough": round(sum(run["told_mib"] >= 0.9 * run["taken_mib"] for run in found) / len(found), 3), "runs": found})


if __name__ == "__main__":
    main()
