"""How right, at what cost: `machikoba tune` and `machikoba prove` on public rows, three draws each.

    python bench/classify.py                               all of it, about 25 minutes on 2 cores
    python bench/classify.py asdc_l1                       one set
    python bench/classify.py --peers ~/peers/bin/python    with the peers' scripts on the same rows (their README says
                                                           what that environment needs)

CPU-seconds are those of the ladder: cross-validation and refit of every step tried, the reading of the messages by the
base included, the start of Python not; those of the whole command stand beside.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from harness import DATA, PEERS, draw, machikoba, rows, spread, write_result, write_rows

SEEDS = (0, 1, 2)
E5, MINILM = "multilingual-e5-small", "all-minilm-l6-v2"
# set, examples per label, base (None: words alone)
RUNS: dict[str, list[tuple[int, str | None]]] = {
    "asdc_l1": [(32, None), (32, E5)],
    "banking77": [(8, None), (8, MINILM), (32, None), (32, MINILM)],
    "sib200_ja": [(10_000, None), (10_000, E5)],
    "clinc150": [(20, None), (20, MINILM)],
}
PEER_RUNS = [("peft_trainer.py", "asdc_l1", 32)]
HIGH = "0.999"  # a goal out of reach, so that every step is tried


def test_rows(dataset: str) -> list[tuple[str, str]]:
    """All test rows; of clinc150, which comes without them, the validation rows with those out of scope."""
    if dataset == "clinc150":
        return rows(DATA / dataset / "val.csv") + rows(DATA / dataset / "oos_val.csv")
    return rows(DATA / dataset / "test.csv")


def measure(dataset: str, per_label: int, base: str | None, seed: int, with_strangers: bool, folder: Path) -> dict[str, Any]:
    """One tune and its figures on the test rows."""
    train = draw(dataset, per_label, seed) + (rows(DATA / dataset / "oos_train.csv") if with_strangers else [])
    data = write_rows(folder / "train.csv", train)
    test = write_rows(folder / "test.csv", test_rows(dataset))
    bundle = folder / f"{dataset}-{per_label}-{base}-{seed}-{with_strangers}.bundle"
    none = ["--none-label", "oos"] if dataset == "clinc150" else []
    way = ["--base", base] if base else ["--rungs", "words"]
    made = machikoba("tune", data, *way, *(none if with_strangers else []), "--holdout", "none", "--target-coverage", HIGH,
                     "--out", bundle, home=folder / "home")
    proved = machikoba("prove", bundle, test, *none, home=folder / "home")["test"]
    tried = [step for step in made["ladder"] if step["cv_accuracy"] is not None]
    return {
        "dataset": dataset, "per_label": per_label, "base": base, "seed": seed, "out_of_scope_learnt": with_strangers,
        "rung": made["rung"], "train": len(train), "test": proved["n"], "accuracy": proved["accuracy"],
        "interval": proved["accuracy_interval"], "macro_f1": proved["macro_f1"], "scope": proved.get("scope"),
        "coverage": proved["coverage"], "error_among_answered": proved["error_among_answered"],
        "cpu_seconds": round(sum(step["cpu_seconds"] for step in tried), 2),
        "whole_command_cpu_seconds": made["cost"]["cpu_seconds"], "peak_mib": made["cost"]["peak_mib"],
        "ladder": [{k: step[k] for k in ("rung", "base", "cv_accuracy", "cpu_seconds", "wall_seconds", "peak_mib", "estimate")}
                   for step in tried]}


def peer(python: Path, script: str, dataset: str, per_label: int, seed: int) -> dict[str, Any]:
    """The line that a peer's script prints."""
    done = subprocess.run([str(python), script, dataset, "--per-class", str(per_label), "--test", "100000", "--seed", str(seed)],
                          cwd=PEERS, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"seed": seed}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each set, size and base: means over the draws."""
    keys = ("dataset", "per_label", "base", "out_of_scope_learnt")
    out = []
    for key in dict.fromkeys(tuple(run[k] for k in keys) for run in runs):
        same = [run for run in runs if tuple(run[k] for k in keys) == key]
        line = dict(zip(keys, key, strict=True)) | {
            "test": same[0]["test"], "accuracy": spread([r["accuracy"] for r in same]),
            "cpu_seconds": spread([r["cpu_seconds"] for r in same]), "peak_mib": max(r["peak_mib"] for r in same)}
        if same[0]["scope"]:
            for name in ("in_scope_accuracy", "out_of_scope_recall", "matthews", "matthews_best"):
                line[name] = spread([r["scope"][name]["value"] for r in same])
        out.append(line)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", help=", ".join(RUNS))
    parser.add_argument("--peers", type=Path, help="Python of an environment with the peers' packages")
    asked = parser.parse_args()
    runs, peers = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        machikoba("tune", write_rows(folder / "first.csv", draw("asdc_l1", 8, 0)),
                  "--holdout", "none", "--target-coverage", HIGH, home=folder / "home")  # converts the base, measures once
        for dataset in asked.datasets or RUNS:
            for per_label, base in RUNS[dataset]:
                for with_strangers in (False, True) if dataset == "clinc150" else (False,):
                    for seed in SEEDS if per_label < 10_000 else SEEDS[:1]:
                        run = measure(dataset, per_label, base, seed, with_strangers, folder)
                        runs.append(run)
                        print(f"{dataset} {per_label} {base or 'words'} seed {seed}: {run['accuracy']:.4f} "
                              f"{run['cpu_seconds']} CPU-s {run['peak_mib']} MiB", flush=True)
            for script, of, per_label in PEER_RUNS if asked.peers else ():
                if of == dataset:
                    for seed in SEEDS:
                        peers.append(peer(asked.peers, script, dataset, per_label, seed))
                        print(json.dumps(peers[-1], ensure_ascii=False), flush=True)
    write_result("classify" if not asked.datasets else "classify-" + "-".join(asked.datasets),
                 {"summary": summarise(runs), "runs": runs, "peers": peers})


if __name__ == "__main__":
    main()
