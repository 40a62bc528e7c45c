"""recipe.toml: everything that it takes to make the same bundle again."""
from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from machikoba import files
from machikoba.adapt.fitted.kernel import Choice
from machikoba.records.read import Records
from machikoba.tune.ladder import Tried
from machikoba.tune.options import Options


def source_of(records: Records) -> dict[str, Any]:
    """Where the examples come from, for the recipe."""
    source = records.source
    return {"file": source.path.name, "sha256": files.digest(source.path), "sheet": source.sheet, "encoding": source.encoding,
            "text": records.text.name, "label": records.label and records.label.name,
            "date": records.date and records.date.name, "rows": records.rows_read}


def recipe(data: dict[str, Any], options: Options, facts: dict[str, Any], choice: Choice, chosen: Tried,
           started: datetime) -> str:
    """The recipe as TOML. data: as of `source_of`."""
    sections: dict[str, dict[str, Any]] = {
        "data": data,
        "settings": {key: value for key, value in asdict(options).items() if key not in ("text", "label", "sheet")},
        "base": facts["base"] or {}, "rung": {"name": chosen.rung.name},
        "choice": asdict(choice), "versions": facts["versions"], "machine": {"processor": facts["machine"]},
        "run": {"started": started.isoformat(timespec="seconds")},
    }
    return "\n".join(_section(name, values) for name, values in sections.items() if values)


def _section(name: str, values: dict[str, Any]) -> str:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]
    return f"[{name}]\n" + "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    """Strings, numbers, booleans and flat lists are the same in TOML and JSON, but for JSON's bare DEL."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
