"""An export as a job: a bundle becomes a file that its owner fetches."""
from __future__ import annotations

from pathlib import Path

from machikoba.desk import bundles, exports
from machikoba.pack.export import export
from machikoba.store.jobs import CancelledError, Lease
from machikoba.tune.ladder import Say


def export_bundle(lease: Lease, say: Say, home: Path) -> None:
    """What an earlier start of the job finished is not made again."""
    with lease.database.reading() as session:
        folder = bundles.folder_of(bundles.by_id(session, lease.business_id, lease.options["bundle"]), home)
    name, out = lease.options["name"], exports.place(home, lease.business_id, lease.job_id)
    try:
        say("export", 0, 1)
        if not out.exists():
            export(folder, out, name)
        say("export", 1, 1)
        lease.finish({"bundle": name, "bytes": out.stat().st_size, "days": exports.DAYS})
    except CancelledError:
        out.unlink(missing_ok=True)
        raise
