"""A proof repeated as a job: does the bundle, on this machine, still answer as it was tested?"""
from __future__ import annotations

from pathlib import Path

from machikoba.desk import bundles
from machikoba.engine.prove import replay_proof
from machikoba.engine.runtime import Engine
from machikoba.store.jobs import Lease
from machikoba.tune.ladder import Say


def replay_bundle(lease: Lease, say: Say, home: Path) -> None:
    """Changes nothing, so that another start of the job does it again. stands: None where there is no proof to repeat."""
    with lease.database.reading() as session:
        folder = bundles.folder_of(bundles.by_id(session, lease.business_id, lease.options["bundle"]), home)
    found = replay_proof(Engine(home).load(folder, check_machine=False), say)
    lease.finish({"bundle": lease.options["name"], "rows": found["rows"], "changed": len(found["changed"]),
                  "stands": found["stands"] if found["rows"] else None, "status": found["status"]})
