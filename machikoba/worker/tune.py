"""A tuning as a job: an uploaded file becomes a bundle with a name."""
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from machikoba.desk import bundles
from machikoba.errors import MachikobaError
from machikoba.pack.bundle import SUFFIX, open_bundle
from machikoba.store.jobs import CancelledError, Lease
from machikoba.tune.ladder import Say
from machikoba.tune.options import Options, seconds
from machikoba.tune.run import tune


def tune_upload(lease: Lease, say: Say, home: Path) -> None:
    """What an earlier start of the job finished is not made again."""
    wanted, folder = lease.options, home / "businesses" / lease.business_id
    upload, out = folder / "uploads" / Path(wanted["upload"]).name, folder / "bundles" / f"{lease.job_id}{SUFFIX}"
    if not out.exists():
        given: dict[str, Any] = {name: wanted[name] for name in ("text", "label", "sheet", "none_label", "target_error")
                                 if wanted.get(name)}
        if wanted.get("rungs"):
            given["rungs"] = tuple(wanted["rungs"].split(","))
        if wanted.get("never_automatic"):
            given["never_automatic"] = tuple(wanted["never_automatic"])
        if wanted.get("budget"):
            given["budget_seconds"] = seconds(wanted["budget"])
        try:
            tune(upload, Options(**given), out, say, resume=lease.attempt > 1, work_in=folder / "work",
                 tell=lambda steps: lease.tell([step.to_dict() for step in steps]))
        except MachikobaError:
            if not out.exists():  # a worker that had lost the job may have finished it in the meantime
                raise
    proof = open_bundle(out).proof()
    try:
        with lease.database.writing() as session:
            bundles.add(session, lease.business_id, wanted["name"], out, home, lease.made_by)
            lease.finish({"bundle": wanted["name"], "status": proof["status"], "test": proof.get("test")}, session)
    except CancelledError:
        shutil.rmtree(out, ignore_errors=True)  # perhaps of somebody who is to be forgotten
        raise
