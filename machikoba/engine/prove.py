"""`machikoba prove`: does the bundle still say what its proof says, or how right is it on other rows?"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from machikoba.engine.judge import Judged, measure_judged
from machikoba.engine.runtime import Service, replay
from machikoba.records.read import read, same_label


def replay_proof(service: Service, say: Callable[[str, int, int], None] = lambda *_: None) -> dict[str, Any]:
    """Asks every certify row again. `stands`: every label and hand-off is as in the proof."""
    proof = service.bundle.proof()
    changed = replay(service, say)
    return {"bundle": str(service.bundle.path), "mode": "replay", "rows": len(proof["certify_rows"]), "changed": changed,
            "stands": not changed, "status": proof["status"], "test": proof["test"], "certificate": proof["certificate"]}


def measure_file(service: Service, path: str | Path, text: str | None = None, label: str | None = None,
                 sheet: str | None = None, none_label: str | None = None) -> dict[str, Any]:
    """The bundle's figures on the labelled rows of another file.

    none_label: how that file marks messages that fit no label. A label that the bundle never learnt is out of scope too.
    """
    records = read(path, text=text, label=label, sheet=sheet)
    known = {name: name for name in service.labels.names}
    labels = []
    for example in records.examples:
        given = str(example.label)
        if none_label is not None and same_label(given, none_label):
            given = service.labels.none or none_label
        labels.append(next((name for name in known if same_label(name, given)), given))
    facts = service.bundle.facts
    threshold = facts["threshold"] if facts["threshold"] is not None else facts["candidate_threshold"]
    judged = Judged(service, [example.original for example in records.examples], labels)
    return {"bundle": str(service.bundle.path), "mode": "measure", "file": str(path), "threshold": threshold,
            "unknown_labels": sorted(set(labels) - set(known)), "test": measure_judged(judged, threshold, Path(path).name)}
