"""Writes the parts of docs/reference that the code knows itself: commands and their options, error codes.

    python tools/reference.py [--check]
"""
from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

os.environ["MACHIKOBA_LANG"] = "en"

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
ERRORS = {"DataError": "the records", "BaseError": "the open model", "BundleError": "the bundle", "BackupError": "a backup",
          "OptionError": "an option", "StorageError": "the disk or the database",
          "AccessError": "who asks", "RequirementError": "a requirement that you set",
          "RequestError": "a request to the server", "BusyError": "too much at the moment"}
SERVED = ("AccessError", "RequestError", "BusyError")  # met by programs that ask the server, not on the command line
HEAD = "<!-- made by tools/reference.py -->\n\n"


def commands() -> str:
    """Every command with its arguments and options, as the program itself describes them."""
    import typer

    from machikoba.cli.app import app

    group: Any = typer.main.get_command(app)
    out = [HEAD + "# Commands",
           "Every command takes `--json`: one object on standard output ([fields](json.md)), errors included. Exit codes: 0 "
           "done, 1 a requirement is not met, 2 bad input, 130 stopped with Ctrl-C."]
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join((p.metavar or p.name).upper() if p.required else f"[{(p.metavar or p.name).upper()}]" for p in arguments)
        out.append(f"## machikoba {name}\n\n{command.help}\n\n```\nmachikoba {name} [OPTIONS] {usage}".rstrip() + "\n```")
        if arguments:
            out.append("\n".join(f"- `{(p.metavar or p.name).upper()}`: {p.help}" for p in arguments))
        rows = ["| option | | default |", "|---|---|---|"]
        for option in options:
            value = option.metavar or ("" if option.is_flag else "VALUE")
            shown = " ".join(filter(None, (option.opts[0], value))).replace("|", "\\|")
            default = "" if option.default is None or option.default is False or option.default == () else f"`{option.default}`"
            rows.append(f"| `{shown}` | {option.help} | {default} |")
        out.append("\n".join(rows))
    return "\n\n".join(out) + "\n"


def codes() -> dict[str, tuple[str, set[str], set[str]]]:
    """By code: the class, the files that raise it, the English messages."""
    found: dict[str, tuple[str, set[str], set[str]]] = {}
    for path in sorted((ROOT / "machikoba").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name == "BusyError":  # gives its own code
                kind, args = node.name, next(call.args for call in ast.walk(node) if isinstance(call, ast.Call) and call.args)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS and node.args:
                kind = node.func.id
                args = node.args[1:] if kind == "RequestError" else node.args  # whose first is the status
            else:
                continue
            messages = {inner.args[0].value for inner in ast.walk(args[1]) if isinstance(inner, ast.Call)
                        and isinstance(inner.func, ast.Name) and inner.func.id == "_"} if len(args) > 1 else set()
            for code in (n.value for n in ast.walk(args[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                         ) if args else ():
                entry = found.setdefault(code, (kind, set(), set()))
                entry[1].add(path.relative_to(ROOT).as_posix())
                entry[2].update(messages)
    return found


def errors() -> str:
    """Every error code, by what it is about."""
    out = [HEAD + "# Errors",
           "Each says what happened, what was expected, what was found and what to do next, in the language of the user. The "
           "code never changes with the language.",
           "```\n{\"error\": {\"code\": \"…\", \"message\": \"…\", \"expected\": \"…\", \"found\": \"…\", \"next\": \"…\"}}\n```"]
    for kind, about in ERRORS.items():
        where = "" if kind in SERVED else f" (exit code {1 if kind == 'RequirementError' else 2})"
        rows = [f"## {kind}: {about}{where}\n", "| code | message | raised in |", "|---|---|---|"]
        for code, (of, files, messages) in sorted(codes().items()):
            if of == kind:
                places = ", ".join(f"`{file}`" for file in sorted(files))
                rows.append(f"| `{code}` | {'<br>'.join(sorted(messages))} | {places} |")
        out.append("\n".join(rows))
    return "\n\n".join(out) + "\n"


def main() -> int:
    stale = []
    for name, text in (("commands.md", commands()), ("errors.md", errors())):
        path = REFERENCE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if "--check" in sys.argv else "written: ") + ", ".join(stale))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
