"""The READMEs say what was measured and show the tree that is there."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("README.md", "README.ja.md")


def tool():
    spec = importlib.util.spec_from_file_location("readme_tool", ROOT / "tools" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_the_measurements(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for figure in ("make demo      # ", "| machikoba", "| `banking77` | 32 |"):
        assert figure in text
    assert tool().filled(name, text) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_tree_is_that_of_the_disk(name):
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)[1]
    shown, folders = [], []
    for line in block.splitlines():
        entry = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        path = "/".join([*folders, entry.rstrip("/")])
        assert (ROOT / path).exists(), line
        if entry.endswith("/"):
            folders = [*folders, entry.rstrip("/")]
        elif path.startswith("machikoba/"):
            shown.append(path)
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "machikoba").rglob("*")
             if path.suffix in (".py", ".toml") and not path.name.startswith("__")}
    assert sorted(shown) == sorted(there)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_tree_is_the_flow(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    places = [text.index(f"\n  {folder}") for folder in ("records/", "base/", "adapt/", "prove/", "tasks/", "pack/", "engine/",
                                                         "tune/", "cli/")]
    assert places == sorted(places)


def test_the_python_example_runs(tmp_path, monkeypatch):
    from tests.conftest import messages, write_csv

    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1]
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "inquiries.csv", [*messages(200), *[(f"営業の電話 {chr(0x4E00 + 97 * i)}", "other") for i in range(20)]])
    quick = code.replace("inquiries.xlsx", "inquiries.csv").replace('none_label="other"', 'none_label="other", rungs=("words",)')
    exec(compile(quick, "README.md", "exec"), {})
    assert (tmp_path / "inquiries.bundle" / "proof.json").exists()
