"""The desk with 100,000 messages stored and a tuning running: from a key to the next message, and every page.

    python bench/desk.py      about three minutes
"""
from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from os import environ
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from harness import ROOT, machikoba, rows, write_result, write_rows
from sqlalchemy import insert, select

from machikoba.desk import promotion
from machikoba.pack.bundle import open_bundle
from machikoba.store.database import Database, default_url
from machikoba.store.tables import BundleEntry, Item, new_id, now

STORED, OPEN_SHARE = 100_000, 0.5
DECISIONS, LOADS = 200, 30


def fill(home: Path) -> None:
    """Messages decided in the past and others that wait."""
    database = Database(default_url(home))
    texts = [text for text, _label in rows(ROOT.parent / "shared" / "data" / "asdc_l1" / "train.csv")]
    with database.writing() as session:
        entry = session.scalars(select(BundleEntry)).one()
        facts = open_bundle(home / entry.folder).facts
        promotion.watch(session, entry, facts)
        labels, moment, waiting = facts["labels"], now(), int(STORED * OPEN_SHARE)
        many = [{"id": new_id(), "business_id": entry.business_id, "bundle_id": entry.id, "text": texts[i % len(texts)],
                 "origin": "api", "said": labels[i % len(labels)], "confidence": 0.5, "others": labels[:3], "answered": False,
                 "would_answer": False, "counted": False, "created_at": moment - timedelta(seconds=STORED - i),
                 "state": "open" if i < waiting else "done", "label": None if i < waiting else labels[i % len(labels)],
                 "decided_by": None if i < waiting else "person:x", "seconds": None if i < waiting else 3.0,
                 "decided_at": None if i < waiting else moment - timedelta(seconds=STORED - i)} for i in range(STORED)]
        session.execute(insert(Item), many)
    database.close()


def milliseconds(taken: list[float]) -> dict[str, float]:
    return {"median_ms": round(1e3 * float(np.median(taken)), 1), "p95_ms": round(1e3 * float(np.quantile(taken, 0.95)), 1)}


def measure(link: str, name: str) -> dict[str, Any]:
    base = link.partition("/open")[0]
    with httpx.Client(base_url=base, follow_redirects=True, timeout=60) as client:
        page = client.get(link).text
        csrf = re.search(r'name="csrf" content="([^"]*)"', page)[1]  # type: ignore[index]
        shown, taken = client.get(f"/desk/{name}").text, []
        for i in range(DECISIONS):
            item = re.search(r'name="item" value="(\w+)"', shown)[1]  # type: ignore[index]
            label = re.findall(r'name="label" value="([^"]*)"', shown)[i % 5]
            began = time.monotonic()
            answer = client.post(f"/desk/{name}", data={"csrf": csrf, "item": item, "label": label, "seconds": "3"},
                                 headers={"Accept": "application/json"})
            taken.append(time.monotonic() - began)
            shown = answer.json()["html"]
        found: dict[str, Any] = {"from_key_to_next": milliseconds(taken)}
        for title, path in (("start", "/"), ("desk", f"/desk/{name}"), ("search", f"/desk/{name}/all?words=子ども"),
                            ("result", f"/bundles/{name}"), ("people", "/people")):
            loads = []
            for _ in range(LOADS):
                began = time.monotonic()
                answer = client.get(path)
                loads.append(time.monotonic() - began)
                assert answer.status_code == 200, path
            found[title] = milliseconds(loads) | {"kib": round(len(answer.content) / 1024, 1)}
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder, home = Path(temporary), Path(temporary) / "home"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        everything = rows(ROOT.parent / "shared" / "data" / "asdc_l1" / "train.csv")
        few = write_rows(folder / "a.csv", everything[::4])
        machikoba("tune", few, "--rungs", "words", "--out", folder / "a.bundle", home=home)
        shutil.copytree(folder / "a.bundle", home / "bundles" / "hotel.bundle")
        command = [sys.executable, "-m", "machikoba", "serve", "--port", str(port)]
        settings = environ | {"MACHIKOBA_HOME": str(home), "MACHIKOBA_LANG": "en", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as server:
            try:
                link = next(found[0] for line in server.stdout or [] if (found := re.search(r"http://\S+/open\?key=\S+", line)))
                time.sleep(2)
                fill(home)
                quiet = measure(link, "hotel")
                key = link.partition("key=")[2]
                data = write_rows(folder / "b.csv", everything)
                with data.open("rb") as file:
                    httpx.post(f"http://127.0.0.1:{port}/v1/tasks", headers={"Authorization": f"Bearer {key}"}, timeout=60,
                               files={"file": ("b.csv", file)}, data={"name": "more", "rungs": "words,features,top"}
                               ).raise_for_status()
                time.sleep(15)  # the tuning has begun to read
                busy = measure(link, "hotel")
            finally:
                server.terminate()
    write_result("desk", {"stored": STORED, "alone": quiet, "while_tuning": busy})


if __name__ == "__main__":
    main()
