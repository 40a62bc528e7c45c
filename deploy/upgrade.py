"""Puts a new version to work, or leaves everything as it was. Needs nothing but Python; run it from the new version's folder.

    sudo python3 deploy/upgrade.py             for the services of deploy/*.service; also the first installation
    sudo python3 deploy/upgrade.py --compose   for the containers of deploy/compose.yaml
    … --back                                   to the version before the last upgrade, with the data of then

    install beside the old → doctor → stop → backup → switch → start → is it well?

Whatever fails after the stop, also Ctrl-C: back to the old version with the data of the backup, started and looked at again.
A power cut in between is made good by the next call. Exit codes: 0 done, 1 all is as it was, 2 a person must look.
"""
from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
WELL_SECONDS = 120  # to start, migrations included
AGAIN_SECONDS = 10  # for a version that was started some time ago
LOOK_SECONDS = 0.5
KEEP_DAYS = 30  # for which there is a way back
RUNNING, LAST = "upgrading.json", "upgraded.json"  # the change under way, and the last one that was made


class FailedError(Exception):
    """A step did not work; the text is for people."""


class Place(Protocol):
    """Where versions live. Names are of versions; each step raises FailedError."""

    folder: Path  # of what is noted about changes
    patience: int  # seconds until a version that was started must be well

    def current(self) -> str | None: ...
    def install(self) -> str: ...
    def machikoba(self, name: str, *words: str) -> dict[str, Any]:
        """What a command of that version prints with --json."""
    def stop(self) -> None: ...
    def switch(self, name: str) -> None: ...
    def start(self) -> None: ...
    def well(self, name: str, seconds: int) -> None: ...
    def keep_only(self, names: set[str]) -> None: ...


def upgrade(place: Place) -> None:
    """A new version, from nothing or from the one at work."""
    old, new = place.current(), place.install()
    try:
        examined(place, new)
        if old is None:
            place.switch(new)
            say("installed", "first version", "now: systemctl enable --now machikoba machikoba-worker")
            return
        change(place, old, new)
    except BaseException:
        if place.current() != new:
            place.keep_only({name for name in (old, read(place, LAST).get("from")) if name})
        raise
    place.keep_only({old, new})


def back(place: Place) -> None:
    """The version before the last change, with the data that it had."""
    last = read(place, LAST)
    if not last or place.current() != last["to"]:
        raise FailedError("there is no upgrade to go back from")
    change(place, last["to"], last["from"], last["backup"])


def change(place: Place, old: str, new: str, data: str | None = None) -> None:
    """From `old` to `new`, whose data comes from the backup `data` where one is given; back to `old` if anything fails."""
    try:
        place.stop()
        made = backup(place, old)
    except BaseException:
        try:
            place.start()
        except FailedError as error:
            say("not started again", str(error))
        raise
    noted = {"from": old, "to": new, "backup": made}
    write(place, RUNNING, noted)
    try:
        place.switch(new)
        if data:
            place.machikoba(new, "restore", data, "--replace")
        place.start()
        place.well(new, place.patience)
    except BaseException as error:
        say("failed", str(error) or type(error).__name__)
        put_back(place, noted)
        raise FailedError(f"{new} did not work; {old} is at work again, with the data of {made}") from error
    write(place, LAST, noted)
    (place.folder / RUNNING).unlink()
    say("at work", new, "the version before and its data: --back")


def backup(place: Place, name: str) -> str:
    """The file in which everything is."""
    made = str(place.machikoba(name, "backup", "--keep-days", str(KEEP_DAYS))["file"])
    say("backup", made)
    return made


def put_back(place: Place, noted: dict[str, str]) -> None:
    """The old version and the data of the backup, whatever has happened since. Raises SystemExit, 2, if that fails too."""
    with undisturbed():
        try:
            place.stop()
            place.switch(noted["from"])
            place.machikoba(noted["from"], "restore", noted["backup"], "--replace")
            place.start()
            place.well(noted["from"], place.patience)
        except Exception as error:
            print(f"\nA person must look: {noted['from']} could not be put back ({error}).\n"
                  f"Its data is in {noted['backup']}. Give this command again when the cause is gone; it goes on from here.",
                  file=sys.stderr)
            raise SystemExit(2) from error
        (place.folder / RUNNING).unlink()


def recover(place: Place) -> None:
    """Ends a change that was cut short: kept if the new version is well, else put back; what is there now is backed up first."""
    noted = read(place, RUNNING)
    if not noted:
        return
    say("cut short", f"{noted['from']} → {noted['to']}")
    try:
        if place.current() != noted["to"]:
            raise FailedError("it had not come to that")
        place.well(noted["to"], min(AGAIN_SECONDS, place.patience))
    except FailedError:
        with contextlib.suppress(FailedError):
            backup(place, str(place.current()))
        put_back(place, noted)
        say("at work", noted["from"])
    else:
        write(place, LAST, noted)
        (place.folder / RUNNING).unlink()
        say("at work", noted["to"])


def examined(place: Place, name: str) -> None:
    """What the new version says of the installation before anything is changed."""
    found = place.machikoba(name, "doctor")
    for finding in found["findings"]:
        if finding["state"] != "ok":
            say(finding["state"], finding["name"], f"{finding['found']}. {finding['next']}")
    if found["state"] == "bad":
        raise FailedError("the new version would not run well here; put right what it says and try again")


class Venvs:
    """A virtual environment for each version in PREFIX/versions, the one at work under the link PREFIX/current."""

    def __init__(self, prefix: Path, services: list[str], user: str, environment: Path, port: int, patience: int) -> None:
        self.folder, self.services, self.port, self.patience = prefix, services, port, patience
        self.environment = os.environ | {"HOME": str(prefix), **settings(environment)}
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0 and user:
            try:
                found = pwd.getpwnam(user)
            except KeyError as error:
                raise FailedError(f"there is no user {user}: useradd --system --home-dir /var/lib/machikoba {user}") from error
            self.user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}

    def current(self) -> str | None:
        link = self.folder / "current"
        return link.readlink().name if link.is_symlink() else None

    def install(self) -> str:
        name = new_name()
        target = self.folder / "versions" / name
        try:
            run([sys.executable, str(ROOT / "tools" / "install.py"), str(target), "e5,gguf,postgresql", "--copy"])
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
        say("installed", name)
        return name

    def machikoba(self, name: str, *words: str) -> dict[str, Any]:
        return json_of([str(self.folder / "versions" / name / "bin" / "machikoba"), *words, "--json"], env=self.environment,
                       cwd="/", **self.user)

    def stop(self) -> None:
        run(["systemctl", "stop", *self.services])

    def switch(self, name: str) -> None:
        draft = self.folder / ".current"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("versions") / name)
        draft.replace(self.folder / "current")
        sync(self.folder)

    def start(self) -> None:
        run(["systemctl", "reset-failed", *self.services])
        run(["systemctl", "start", *self.services])

    def well(self, name: str, seconds: int) -> None:
        wanted = run([str(self.folder / "versions" / name / "bin" / "machikoba"), "--version"], cwd="/", **self.user).strip()
        until, found = time.monotonic() + seconds, "no answer"
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as reply:
                    found = str(json.load(reply).get("version"))
                if found == wanted:
                    run(["systemctl", "is-active", "--quiet", *self.services])
                    return
            except (OSError, ValueError, FailedError) as error:
                found = str(error)
            if time.monotonic() > until:
                raise FailedError(f"{name} is not well after {seconds} s: {found}. See journalctl -u {self.services[0]}")
            time.sleep(LOOK_SECONDS)

    def keep_only(self, names: set[str]) -> None:
        for folder in (self.folder / "versions").iterdir():
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)


class Containers:
    """An image for each version, tagged with its name; .env names the one at work."""

    def __init__(self, folder: Path, patience: int) -> None:
        self.folder, self.settings, self.patience = folder, folder / ".env", patience

    def current(self) -> str:
        if not (found := settings(self.settings).get("MACHIKOBA_TAG")):
            raise FailedError(f"no MACHIKOBA_TAG in {self.settings}: copy .env.example to .env and fill it in")
        return found

    def install(self) -> str:
        name = new_name()
        self.compose("build", "server", tag=name)
        say("built", name)
        return name

    def machikoba(self, name: str, *words: str) -> dict[str, Any]:
        return json_of(["docker", "compose", "run", "--rm", "--no-deps", "-T", "server", *words, "--json"], cwd=self.folder,
                       env=os.environ | {"MACHIKOBA_TAG": name})

    def stop(self) -> None:
        self.compose("stop", "worker", "server")

    def switch(self, name: str) -> None:
        lines = self.settings.read_text(encoding="utf-8").splitlines()
        changed = [f"MACHIKOBA_TAG={name}" if line.startswith("MACHIKOBA_TAG=") else line for line in lines]
        draft = self.settings.with_name(".env.draft")
        draft.touch(mode=0o600)
        draft.write_text("\n".join(changed) + "\n", encoding="utf-8")
        shutil.copymode(self.settings, draft)
        draft.replace(self.settings)
        sync(self.folder)

    def start(self) -> None:
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(self.patience))

    def well(self, name: str, seconds: int) -> None:
        check = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:8600/healthz', timeout={seconds})"
        self.compose("exec", "-T", "server", "python", "-c", check, tag=name)

    def keep_only(self, names: set[str]) -> None:
        with contextlib.suppress(FailedError):  # one that is in use stays
            for tag in run(["docker", "image", "ls", "--format", "{{.Tag}}", "machikoba"]).split():
                if tag not in names:
                    run(["docker", "image", "rm", f"machikoba:{tag}"])

    def compose(self, *words: str, tag: str | None = None) -> str:
        return run(["docker", "compose", *words], cwd=self.folder, env=os.environ | ({"MACHIKOBA_TAG": tag} if tag else {}))


def new_name() -> str:
    """Of the version in this folder, and when it was installed."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return f"{version}-{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"


def settings(path: Path) -> dict[str, str]:
    """NAME=VALUE lines, as systemd and Docker read them; nothing where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, _equals, value in pairs}


def run(command: list[str], **options: Any) -> str:
    """What a command prints. Raises FailedError with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except OSError as error:
        raise FailedError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise FailedError(f"{' '.join(command)} ended with {done.returncode}: " + " / ".join(last))
    return done.stdout


def json_of(command: list[str], **options: Any) -> dict[str, Any]:
    """The JSON object that a machikoba command prints; `doctor` also prints one when it ends with 1."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        said = json.loads(done.stdout)
    except (OSError, ValueError) as error:
        raise FailedError(f"{' '.join(command)} could not be understood: {error}") from error
    if "error" in said or (done.returncode and "findings" not in said):
        raise FailedError(f"{' '.join(command)}: {said.get('error', {}).get('message', done.stderr.strip())}")
    return dict(said)


def say(*words: str) -> None:
    print("  ".join(words), flush=True)


def read(place: Place, name: str) -> dict[str, str]:
    path = place.folder / name
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write(place: Place, name: str, noted: dict[str, str]) -> None:
    draft = place.folder / f".{name}"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(noted, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place.folder / name)
    sync(place.folder)


def sync(folder: Path) -> None:
    """Waits until the disk has the names in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and the like wait until the block has ended."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--back", action="store_true", help="go back to the version before")
    parser.add_argument("--compose", action="store_true", help="the containers of deploy/compose.yaml")
    parser.add_argument("--prefix", type=Path, default=Path("/opt/machikoba"), help="folder of the versions")
    parser.add_argument("--service", action="append", help="unit to stop and start (default: server and worker)")
    parser.add_argument("--user", default="machikoba", help="whose the data is")
    parser.add_argument("--environment", type=Path, default=Path("/etc/machikoba/environment"), help="settings of the services")
    parser.add_argument("--port", type=int, default=8600, help="where the server answers on this machine")
    parser.add_argument("--wait", type=int, default=WELL_SECONDS, help="seconds for a version to start, migrations included")
    given = parser.parse_args()

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        if given.compose:
            place: Place = Containers(ROOT / "deploy", given.wait)
        else:
            services = given.service or ["machikoba.service", "machikoba-worker.service"]
            (given.prefix / "versions").mkdir(parents=True, exist_ok=True)
            place = Venvs(given.prefix, services, given.user, given.environment, given.port, given.wait)
        with (place.folder / ".upgrade.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            recover(place)
            (back if given.back else upgrade)(place)
    except BlockingIOError:
        print("Another upgrade is under way.", file=sys.stderr)
        return 1
    except (FailedError, OSError, KeyboardInterrupt) as error:
        print(f"Not done: {error or 'stopped; all is as it was'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
