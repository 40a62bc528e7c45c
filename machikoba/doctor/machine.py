"""The machine: programs, settings, home, disk, memory, clock."""
from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import time
import uuid
from datetime import datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path

import machikoba
from machikoba import files, memory
from machikoba.base.catalog import catalog
from machikoba.doctor.finding import Finding, bad, ok, told, warn
from machikoba.errors import OptionError, StorageError
from machikoba.language import _
from machikoba.settings import prices
from machikoba.store.tables import now

EXTRAS = {"gguf": "gguf", "postgresql": "psycopg"}  # besides those that bring a base
SPARE_MIB = 1_024  # for uploads, bundles and the store, until somebody looks again
SKEW = timedelta(minutes=2)  # by which two clocks may differ
CLOCK_SECONDS = 3  # to wait for the system's word


def programs() -> list[Finding]:
    """Python, PyTorch and the optional parts."""
    packages = {found.metadata["Name"].lower(): found.version for found in distributions() if found.metadata["Name"]}
    extras = [name for name, module in EXTRAS.items() if importlib.util.find_spec(module)]
    bases = [entry.name for entry in catalog().values() if entry.shipped_files()]
    found = _("machikoba {version}, Python {python}, PyTorch {torch}; optional parts: {extras}; open models: {bases}").format(
        version=machikoba.__version__, python=platform.python_version(), torch=packages.get("torch", "?"),
        extras=", ".join(extras) or _("none"), bases=", ".join(bases) or _("none"))
    cuda = sorted(name for name in packages if name.startswith("nvidia-"))
    if cuda and not Path("/dev/nvidia0").exists():
        return [warn("programs", found, _("Gigabytes for a GPU that is not here: install anew with the CPU build of PyTorch "
                                          "({package}).").format(package=cuda[0]))]
    return [ok("programs", found)]


def settings() -> list[Finding]:
    """settings.toml in the home."""
    try:
        prices()
    except OptionError as error:
        return [told("settings", error)]
    return [ok("settings", _("readable"))]


def home_folder(home: Path) -> list[Finding]:
    """Whether machikoba can write its home, and others cannot read it."""
    if not home.is_dir():
        return [warn("home", _("{path} is not there yet").format(path=home),
                     _("Nothing need be done: the first tuning or `machikoba serve` makes it."))]
    test = home / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        began = time.monotonic()
        files.write(test, b"x")
        files.sync_folder(home)
        seconds = time.monotonic() - began
    except StorageError as error:
        return [told("home", error)]
    finally:
        test.unlink(missing_ok=True)
    found = _("{path}: written to the disk in {n} ms").format(path=home, n=round(1_000 * seconds))
    if os.name != "nt" and _open_to_others(home.resolve()):
        return [warn("home", _("{path} can be read by every user of this machine").format(path=home),
                     f"chmod 700 {home}")]
    return [ok("home", found)]


def _open_to_others(home: Path) -> bool:
    """Whether other users get into `home`: it and each folder above must let them."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (home, *home.parents))


def disk(home: Path, to_unpack_mib: int) -> list[Finding]:
    """Room on the home's disk. to_unpack_mib: what bases will take that are not unpacked yet."""
    there = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free >> 20
    used = sum(path.lstat().st_size for path in home.rglob("*") if path.is_file()) >> 20 if home.exists() else 0
    found = _("{free:,} MiB free; the home takes {used:,} MiB").format(free=free, used=used)
    if free < to_unpack_mib + SPARE_MIB // 4:
        return [bad("disk", found, _("Make room, at least {n:,} MiB, or set MACHIKOBA_HOME to another disk.").format(
            n=to_unpack_mib + SPARE_MIB))]
    if free < to_unpack_mib + SPARE_MIB + used:
        return [warn("disk", found, _("Make room soon: a backup takes up to as much as the home, and {n:,} MiB are needed "
                                      "besides.").format(n=to_unpack_mib + SPARE_MIB))]
    return [ok("disk", found)]


def room_in_memory(needed_mib: int, serving: bool) -> list[Finding]:
    """Memory for the bundles that are here. serving: a server holds them already, so that it need not be free."""
    total, free = memory.total_mib(), memory.available_mib()
    found = _("{free:,} of {total:,} MiB available; the bundles here need about {needed:,} MiB").format(
        free=free, total=total, needed=needed_mib)
    if total < needed_mib:
        return [bad("memory", found, _("Use a machine with more memory or raise the limit of the container, or tune bundles "
                                       "on a smaller open model."))]
    if free < needed_mib and not serving:
        return [warn("memory", found, _("Close other programs before the server starts."))]
    return [ok("memory", found)]


def clock(home: Path, newest_entry: datetime | None) -> list[Finding]:
    """Whether the clock has gone back, and whether something keeps it right. newest_entry: of the audit."""
    moment = now()
    stamps = [path.stat().st_mtime for path in (*home.glob("*"), *home.glob("bundles/*"), Path(machikoba.__file__))]
    newest = max([datetime.fromtimestamp(max(stamps), moment.tzinfo), *([newest_entry] if newest_entry else [])])
    found = moment.astimezone().isoformat(sep=" ", timespec="seconds")
    way = _("Set the clock: sudo timedatectl set-ntp true (Windows: Settings, Time & language, Sync now).")
    if newest > moment + SKEW:
        return [bad("clock", _("{clock}, but something here was written at {later}").format(
            clock=found, later=newest.astimezone().isoformat(sep=" ", timespec="seconds")), way)]
    kept = _kept_right()
    if kept is False:
        return [warn("clock", _("{clock}, and nothing keeps it right").format(clock=found), way)]
    return [ok("clock", found if kept is None else _("{clock}, kept right by the system").format(clock=found))]


def _kept_right() -> bool | None:
    """Whether the system's time service is synchronised; None where it does not say."""
    try:
        said = subprocess.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], capture_output=True, text=True,
                              timeout=CLOCK_SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"yes": True, "no": False}.get(said)
