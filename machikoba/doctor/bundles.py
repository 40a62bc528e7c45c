"""The bundles: whole, their open models here and the right ones, their proofs standing on this machine."""
from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machikoba.base.catalog import catalog, in_hub_cache
from machikoba.base.load import find_base, unpacked
from machikoba.doctor.finding import Finding, bad, ok, told, warn
from machikoba.engine import replays
from machikoba.errors import BaseError, BundleError
from machikoba.files import digest
from machikoba.language import _
from machikoba.pack.bundle import SUFFIX, Bundle, open_bundle

WORDS_MIB = 256  # a server of bundles that need no open model: measured 223 after 10,000 messages
PER_BASE_MIB = 700  # around an unknown base's weights


@dataclass
class Examined:
    """memory_mib: what a server of these bundles needs; to_unpack_mib: what their bases will take on the disk."""

    findings: list[Finding] = field(default_factory=list)
    memory_mib: int = WORDS_MIB
    to_unpack_mib: int = 0


def examine(home: Path, named: Iterable[Path]) -> Examined:
    """Every bundle in the home and those `named` in the store."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # nobody is asked for a base that is not here
    lying = [*(home / "bundles").glob(f"*{SUFFIX}"), *(home / "businesses").glob(f"*/bundles/*{SUFFIX}")]
    found, whole = Examined(), list[Bundle]()
    for path in sorted({path.resolve() for path in (*lying, *named)}):
        try:
            whole.append(open_bundle(path))
        except BundleError as error:
            found.findings.append(told("bundles", error))
    if not found.findings:
        found.findings.append(ok("bundles", _("{n} here, every byte as it was made").format(n=len(whole))))
    bases = {about["source"]: about for bundle in whole if (about := bundle.facts["base"]) is not None}
    for about in bases.values():
        _base(about, home, found)
    found.findings += _proofs(whole, home)
    return found


def _base(about: dict[str, Any], home: Path, found: Examined) -> None:
    """Whether the base that bundles name is here, and the same. What is packed is not unpacked for that."""
    source, wanted = about["source"], about["sha256"]
    entry, path = catalog().get(source), Path(source).expanduser()
    packed = [path] if path.suffix == ".gguf" and path.is_file() else (
        entry.shipped_files() if entry and entry.files and entry.format != "folder" else None)
    try:
        if packed and not unpacked(home, path.stem if path.suffix == ".gguf" else source, wanted).exists():
            sha256, size = digest(*packed), sum(one.stat().st_size for one in packed) >> 20
            found.to_unpack_mib += entry.disk_mib if entry else 4 * size
            needed = entry.memory_mib if entry else 4 * size + PER_BASE_MIB
        elif "/" in source and entry is None and not path.is_dir() and not packed and not in_hub_cache(source):
            found.findings.append(_missing(source))
            return
        else:
            base = find_base(source, home)
            size = sum(one.stat().st_size for one in base.folder.glob("*.safetensors")) >> 20
            sha256, needed = base.sha256, base.memory_mib or size + PER_BASE_MIB
    except BaseError as error:
        found.findings.append(told("base", error))
        return
    found.memory_mib += needed
    if sha256 == wanted:
        found.findings.append(ok("base", _("{name} is here, the copy that the bundles name").format(name=source)))
    else:
        found.findings.append(bad("base", _("{name} is another copy than the bundles name").format(name=source),
                                  _("Install the version that the bundle names, or tune again with this one.")))


def _missing(source: str) -> Finding:
    return bad("base", _("The open model {name} is not on this machine.").format(name=source),
               _("Connect to the internet once so that it can be fetched, or choose one that is here."))


def _proofs(whole: list[Bundle], home: Path) -> list[Finding]:
    """Whether the certificates stand here."""
    certified, known = [b for b in whole if b.facts["threshold"] is not None], replays.known(home)
    found = []
    for bundle in certified:
        stands = replays.stands(known, bundle.facts, bundle.fingerprint)
        if stands is None:
            found.append(warn("proof", _("{name} was proved on another machine and not yet asked here").format(
                name=bundle.path.name), _("Replay its proof: {command}").format(command=f'machikoba prove "{bundle.path}"')))
        elif not stands:
            found.append(warn("proof", _("{name} does not answer here as it was proved: a person confirms every answer").format(
                name=bundle.path.name), _("Tune it again on this machine.")))
    apprentices = len(whole) - len(certified)
    return found or ([ok("proof", _("{n} qualified, {apprentices} apprentices").format(
        n=len(certified), apprentices=apprentices))] if whole else [])
