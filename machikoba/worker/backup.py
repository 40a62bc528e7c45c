"""A backup as a job. It stays on the server, sealed where the worker's environment has a passphrase."""
from __future__ import annotations

from pathlib import Path

from machikoba.store import backup, sealed
from machikoba.store.jobs import Lease
from machikoba.tune.ladder import Say


def back_up(lease: Lease, say: Say, home: Path) -> None:
    """What an earlier start of the job finished is not made again; the result counts, and names nothing of any business."""
    passphrase = sealed.from_environment()
    made = backup.make(home, lease.database, passphrase=sealed.usable(passphrase) if passphrase else None,
                       keep_days=lease.options["keep_days"], actor=lease.made_by, say=say, id=lease.job_id)
    lease.finish({"file": Path(made["file"]).name, "deleted": made["deleted"],
                  **{name: made[name] for name in ("bytes", "sha256", "encrypted", "rows", "bundles", "outside", "kept_until")},
                  **{name: len(made[name]) for name in ("gone", "damaged")}})
