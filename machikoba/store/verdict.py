"""What the bundles of a backup can still do: every one opened, and one of each open model asked."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from machikoba.engine.prove import replay_proof
from machikoba.engine.runtime import Engine
from machikoba.errors import BackupError, MachikobaError
from machikoba.language import _
from machikoba.pack.bundle import Bundle, open_bundle

Say = Callable[[str, int, int], None]


def bundles(folder: Path, home: Path, damaged: list[str], say: Say) -> dict[str, Any]:
    """Opens every bundle below `folder`; of each base the first repeats its proof, with the open models of `home`.

    damaged: those that were so when the backup was made. Raises BackupError for any other that is.
    """
    engine, by_base, broken = Engine(home), dict[str, Bundle](), []
    paths = sorted(path.parent for path in folder.rglob("bundle.json"))
    for number, path in enumerate(paths):
        say("bundles", number, len(paths))
        name = path.relative_to(folder).as_posix()
        try:
            bundle = open_bundle(path)
        except MachikobaError as error:
            if name not in damaged:
                raise BackupError("backup_damaged", _("A bundle of the backup is damaged."), expected=name, found=error.message,
                                  next=_("Take an older backup.")) from error
            broken.append(name)
            continue
        by_base.setdefault(bundle.facts["base"]["sha256"] if bundle.facts["base"] else "", bundle)
    asked = [_asked(engine, bundle, bundle.path.relative_to(folder).as_posix(), say) for bundle in by_base.values()]
    return {"bundles": len(paths) - len(broken), "damaged": broken, "asked": asked}


def _asked(engine: Engine, bundle: Bundle, name: str, say: Say) -> dict[str, Any]:
    base = bundle.facts["base"]["name"] if bundle.facts["base"] else None
    try:
        service = engine.load(bundle.path, check_machine=False)
        replayed = replay_proof(service, say)
        if not replayed["rows"]:
            service.predict([example["text"] for example in bundle.examples()[:1]])
    except MachikobaError as error:  # its open model is not here
        return {"bundle": name, "base": base, "rows": None, "stands": None, "why_not": error.code}
    return {"bundle": name, "base": base, "rows": replayed["rows"], "stands": replayed["stands"] if replayed["rows"] else None,
            "why_not": None}
