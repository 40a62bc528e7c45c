"""The documents are true: generated parts, links, options, codes, examples."""
from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer

from machikoba.cli.app import app
from tests.conftest import messages, write_csv

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "sample" / "README.md"])


def tool():
    spec = importlib.util.spec_from_file_location("reference_tool", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_reference_is_up_to_date():
    made = tool()
    assert (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8") == made.commands()
    assert (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8") == made.errors()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#][^)]*)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_and_options_exist(document):
    commands = typer.main.get_command(app).commands
    every = {option for command in commands.values() for parameter in command.params for option in parameter.opts}
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|[`/ ])machikoba ([a-z]+)(?=[ `\n])", "\n".join(
            [*re.findall(r"```\n.*?```", text, re.S), *re.findall(r"`machikoba [^`]*`", text)]), re.M):
        assert name in commands, name
    for line in re.findall(r"machikoba [a-z]+[^\n`]*|`--[a-z-]+[^`]*`", text):
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
            assert option in every, option


def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [*messages(200), *[(f"営業の電話 {chr(0x4E00 + 97 * i)}{chr(0x5E00 + 31 * i)}", "other") for i in range(20)]]
    write_csv(tmp_path / "inquiries.csv", rows)
    text = (ROOT / "docs" / "how-to" / "use-from-python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "use-from-python.md", "exec"), {})


def test_documented_json_fields_are_there(made):
    text = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    section = text.split("## tune")[1].split("## check")[0]
    summary = made.summary
    for part in (summary, summary["ladder"][0], summary["test"], summary["certificate"], summary["cost"]):
        for name in part:
            assert f"`{name}`" in section or name.endswith("_interval"), name
