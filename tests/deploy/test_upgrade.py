"""A new version is at work, or everything is as it was: with stand-ins for the versions, systemctl and docker."""
from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# A version: its data is one file in the home, and what it is asked is noted. What is named in `fail` does not work.
PROGRAM = """#!{python}
import json, pathlib, sys
home, name, words = pathlib.Path({home!r}), {name!r}, sys.argv[1:]
def fails(what): return what in (home / "fail").read_text().split()
if words == ["--version"]:
    print(name.split("-")[0]); sys.exit()
(home / "log").open("a").write(f"{{name}} {{' '.join(words)}}\\n")
if fails(f"{{words[0]}}:{{name}}"):
    print(json.dumps({{"error": {{"message": f"{{words[0]}} refused"}}}})); sys.exit(2)
if words[0] == "doctor":
    bad = fails("bad")
    print(json.dumps({{"state": "bad" if bad else "warn", "findings": [
        {{"name": "disk", "state": "bad" if bad else "warn", "found": "3 MiB free", "next": "Make room"}}]}}))
    sys.exit(int(bad))
if words[0] == "backup":
    made = home / f"backup-{{len(list(home.glob('backup-*')))}}"
    made.write_text((home / "data").read_text())
    print(json.dumps({{"file": str(made)}}))
if words[0] == "restore":
    assert words[2] == "--replace"
    (home / "data").write_text(pathlib.Path(words[1]).read_text())
    print("{{}}")
"""
# Starting a version changes its data, as a migration does.
SYSTEMCTL = """#!{python}
import pathlib, sys
home, words = pathlib.Path({home!r}), sys.argv[1:]
name = {current}
if f"{{words[0]}}:{{name}}" in (home / "fail").read_text().split():
    print("Job failed", file=sys.stderr); sys.exit(1)
if words[0] in ("start", "stop"):
    (home / "log").open("a").write(f"{{words[0]}} {{name}}\\n")
    (home / "running").write_text(name if words[0] == "start" else "")
    if words[0] == "start" and name not in (home / "data").read_text():
        (home / "data").write_text((home / "data").read_text() + f" {{name}}")
if words[0] == "is-active" and not (home / "running").read_text():
    sys.exit(3)
"""
INSTALL = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
assert sys.argv[3] == "--copy"
home = pathlib.Path({home!r})
(folder / "bin").mkdir(parents=True)
if "install" in (home / "fail").read_text().split():
    print("no room", file=sys.stderr); sys.exit(1)
program = folder / "bin" / "machikoba"
program.write_text({program!r}.replace("NAME", folder.name))
program.chmod(0o755)
"""


class Town:
    """A machine with one old version at work."""

    def __init__(self, folder):
        self.home, self.prefix, self.source = folder / "home", folder / "opt", folder / "source"
        for name in (self.home, self.prefix / "versions", self.source / "deploy", self.source / "tools", folder / "bin"):
            name.mkdir(parents=True)
        for name, content in (("fail", ""), ("log", ""), ("data", "rows"), ("running", "1.0-old")):
            (self.home / name).write_text(content)
        (self.source / "pyproject.toml").write_text('[project]\nversion = "2.0"\n')
        (self.source / "deploy" / "upgrade.py").write_text((ROOT / "deploy" / "upgrade.py").read_text(encoding="utf-8"))
        home = str(self.home)
        program = PROGRAM.format(python=sys.executable, home=home, name="NAME")
        (self.source / "tools" / "install.py").write_text(INSTALL.format(home=home, program=program))
        old = self.prefix / "versions" / "1.0-old" / "bin"
        old.mkdir(parents=True)
        self.script(old / "machikoba", program.replace("NAME", "1.0-old"))
        (self.prefix / "current").symlink_to("versions/1.0-old")
        self.path = folder / "bin"
        self.script(self.path / "systemctl", SYSTEMCTL.format(
            python=sys.executable, home=home, current=f"pathlib.Path({str(self.prefix / 'current')!r}).readlink().name"))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def script(path, text):
        path.write_text(text)
        path.chmod(0o755)

    def handler(self):
        home = self.home

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                running, fail = (home / "running").read_text(), (home / "fail").read_text().split()
                well = running and f"well:{running}" not in fail
                self.send_response(200 if well else 503)
                self.end_headers()
                if well:
                    self.wfile.write(json.dumps({"version": running.split("-")[0]}).encode())

            def log_message(self, *_args):
                pass

        return Handler

    def command(self, *options):
        return [sys.executable, str(self.source / "deploy" / "upgrade.py"), "--prefix", str(self.prefix), "--port",
                str(self.server.server_address[1]), "--user", "", "--environment", str(self.home / "none"), *options]

    def run(self, *options, fail="", wait=2):
        (self.home / "fail").write_text(fail)
        return subprocess.run([*self.command("--wait", str(wait)), *options], capture_output=True, text=True, timeout=60,
                              check=False, env=self.environment())

    def environment(self):
        return os.environ | {"PATH": f"{self.path}:{os.environ['PATH']}"}

    @property
    def current(self):
        return (self.prefix / "current").readlink().name

    @property
    def data(self):
        return (self.home / "data").read_text()

    @property
    def running(self):
        return (self.home / "running").read_text()

    @property
    def versions(self):
        return sorted(folder.name for folder in (self.prefix / "versions").iterdir())

    def is_as_it_was(self):
        assert (self.current, self.running, self.data) == ("1.0-old", "1.0-old", "rows 1.0-old")
        assert self.versions == ["1.0-old"]
        assert not (self.prefix / "upgrading.json").exists()


@pytest.fixture
def town(tmp_path):
    made = Town(tmp_path)
    (made.home / "data").write_text("rows 1.0-old")
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_new_version_is_put_to_work(town):
    done = town.run()
    assert done.returncode == 0, done.stderr
    assert "3 MiB free. Make room" in done.stdout
    assert town.current.startswith("2.0-")
    assert town.running == town.current
    assert town.data == f"rows 1.0-old {town.current}"
    assert town.versions == ["1.0-old", town.current]
    steps = [line.replace(town.current, "NEW") for line in (town.home / "log").read_text().splitlines()]
    assert steps == ["NEW doctor --json", "stop 1.0-old", "1.0-old backup --keep-days 30 --json", "start NEW"]


def test_and_back_with_the_data_of_then(town):
    town.run()
    new = town.current
    (town.home / "data").write_text(f"rows {new} and more")
    done = town.run("--back")
    assert done.returncode == 0, done.stderr
    assert (town.current, town.running, town.data) == ("1.0-old", "1.0-old", "rows 1.0-old")
    assert "and more" in (town.home / "backup-1").read_text()  # what came since is not lost
    assert town.run("--back").returncode == 0  # and forth again
    assert (town.current, town.data) == (new, f"rows {new} and more")


def test_there_is_nothing_to_go_back_to(town):
    done = town.run("--back")
    assert (done.returncode, "no upgrade to go back from" in done.stderr) == (1, True)
    town.is_as_it_was()


@pytest.mark.parametrize("fail", ["install", "bad", "stop:1.0-old", "backup:1.0-old"])
def test_what_fails_before_the_switch_changes_nothing(town, fail):
    done = town.run(fail=fail)
    assert done.returncode == 1
    assert done.stderr.startswith("Not done: ")
    town.is_as_it_was()


@pytest.mark.parametrize("what", ["start", "well", "is-active"])
def test_what_fails_after_it_is_put_back(town, what):
    moment = time.strftime("%Y%m%d%H%M", time.gmtime())
    names = [f"2.0-{moment}{second:02}" for second in range(60)]
    later = time.strftime("%Y%m%d%H%M", time.gmtime(time.time() + 60))
    names += [f"2.0-{later}{second:02}" for second in range(60)]
    done = town.run(fail=" ".join(f"{what}:{name}" for name in names))
    assert done.returncode == 1
    assert "1.0-old is at work again" in done.stderr
    town.is_as_it_was()
    assert town.run().returncode == 0  # and nothing stands in the way of the next


def failing(town, *extra):
    """Until the new version is well, which it never is."""
    seconds = [time.strftime("%Y%m%d%H%M%S", time.gmtime(time.time() + i)) for i in range(-5, 90)]
    return " ".join([*(f"well:2.0-{second}" for second in seconds), *extra])


def test_when_even_that_fails_a_person_is_called_and_it_goes_on_later(town):
    done = town.run(fail=failing(town, "restore:1.0-old"))
    assert done.returncode == 2
    assert "A person must look" in done.stderr
    assert str(town.home / "backup-0") in done.stderr
    done = town.run(fail="bad")
    assert done.returncode == 1  # the doctor; but first what was left
    assert "cut short" in done.stdout
    town.is_as_it_was()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle(town, number):
    (town.home / "fail").write_text(failing(town))
    process = subprocess.Popen(town.command("--wait", "60"), env=town.environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_for(lambda: town.running.startswith("2.0-"))
    process.send_signal(number)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "1.0-old is at work again" in err
    town.is_as_it_was()


@pytest.mark.parametrize("well", [True, False])
def test_a_power_cut_in_the_middle(town, well):
    (town.home / "fail").write_text(failing(town))
    process = subprocess.Popen(town.command("--wait", "60"), env=town.environment(), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: town.running.startswith("2.0-"))
    process.kill()
    process.communicate(timeout=30)
    new = town.current
    done = town.run("--back", fail="" if well else failing(town), wait=1)
    assert done.returncode == (0 if well else 1)
    assert (f"at work  {new if well else '1.0-old'}") in done.stdout
    assert (town.current, town.running, town.data) == ("1.0-old", "1.0-old", "rows 1.0-old")


def test_two_at_a_time(town):
    import fcntl

    with (town.prefix / ".upgrade.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = town.run()
    assert (done.returncode, done.stderr) == (1, "Another upgrade is under way.\n")


def test_the_first_installation(town):
    (town.prefix / "current").unlink()
    done = town.run()
    assert done.returncode == 0, done.stderr
    assert town.current.startswith("2.0-")
    assert "systemctl enable --now" in done.stdout


def test_settings_of_the_services_are_those_of_the_commands(town):
    (town.home / "none").write_text("# of the units\nMACHIKOBA_HOME=/somewhere\n\n")
    program = town.prefix / "versions" / "1.0-old" / "bin" / "machikoba"
    program.write_text(program.read_text().replace("if words[0] == \"backup\":", "import os\nif words[0] == \"backup\":\n    "
                                                   "(home / 'seen').write_text(os.environ['MACHIKOBA_HOME'])"))
    town.run()
    assert (town.home / "seen").read_text() == "/somewhere"


def wait_for(what):
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


DOCKER = """#!{python}
import json, os, pathlib, subprocess, sys
home, words = pathlib.Path({home!r}), sys.argv[1:]
fail = (home / "fail").read_text().split()
tag = os.environ.get("MACHIKOBA_TAG") or (words[0] == "compose" and dict(
    line.split("=", 1) for line in (pathlib.Path(".env")).read_text().splitlines())["MACHIKOBA_TAG"])
(home / "log").open("a").write(f"{{tag}} {{' '.join(words)}}\\n")
if words[:2] == ["image", "ls"]:
    print((home / "images").read_text())
if words[:2] == ["image", "rm"]:
    (home / "images").write_text((home / "images").read_text().replace(words[2].split(":")[1] + "\\n", ""))
if words[0] == "compose":
    what = words[1]
    if any(f"{{what}}:{{t}}" in fail for t in (tag, tag.split("-")[0])):
        print("no", file=sys.stderr); sys.exit(1)
    if what == "build":
        (home / "images").open("a").write(tag + "\\n")
    if what in ("stop", "up"):
        (home / "running").write_text(tag if what == "up" else "")
        if what == "up" and tag not in (home / "data").read_text():
            (home / "data").write_text((home / "data").read_text() + f" {{tag}}")
    if what == "run":
        sys.exit(subprocess.run([sys.executable, "-", *words[6:]], input={program!r}.replace("NAME", tag), text=True).returncode)
"""


@pytest.fixture
def quay(town):
    """The same with containers."""
    folder = town.source / "deploy"
    (folder / ".env").write_text("POSTGRES_PASSWORD=secret\nMACHIKOBA_TAG=1.0-old\n")
    (folder / ".env").chmod(0o600)
    (town.home / "images").write_text("1.0-old\n0.9-older\n")
    program = PROGRAM.format(python=sys.executable, home=str(town.home), name="NAME")
    town.script(town.path / "docker", DOCKER.format(python=sys.executable, home=str(town.home), program=program))
    return folder / ".env"


def test_containers(town, quay):
    done = town.run("--compose")
    assert done.returncode == 0, done.stderr
    tag = town.running
    assert tag.startswith("2.0-")
    assert quay.read_text() == f"POSTGRES_PASSWORD=secret\nMACHIKOBA_TAG={tag}\n"
    assert quay.stat().st_mode & 0o777 == 0o600
    assert (town.home / "images").read_text().split() == ["1.0-old", tag]
    assert town.run("--compose", "--back").returncode == 0
    assert (town.running, town.data) == ("1.0-old", "rows 1.0-old")


@pytest.mark.parametrize("fail", ["build:2.0", "bad", "stop:1.0-old", "backup:1.0-old", "up:2.0", "exec:2.0"])
def test_containers_are_as_they_were(town, quay, fail):
    done = town.run("--compose", fail=fail)
    assert done.returncode == 1, done.stderr
    assert (town.running, town.data) == ("1.0-old", "rows 1.0-old")
    assert quay.read_text() == "POSTGRES_PASSWORD=secret\nMACHIKOBA_TAG=1.0-old\n"


def test_containers_without_settings(town, quay):
    quay.unlink()
    done = town.run("--compose")
    assert (done.returncode, "copy .env.example" in done.stderr) == (1, True)
