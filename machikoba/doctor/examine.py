"""Every examination, in the order in which to put things right."""
from __future__ import annotations

from pathlib import Path

from machikoba.doctor import bundles, machine, reach, store
from machikoba.doctor.finding import BAD, OK, WARN, Finding


def examine(home: Path, port: int, public_name: str | None = None) -> list[Finding]:
    """What is well and what is not, on this machine and under `public_name`. Raises OptionError for a name that is none."""
    outside = reach.public(public_name) if public_name else []
    server, serving = reach.server(port)
    kept = store.examine(home)
    packed = bundles.examine(home, kept.bundles)
    return [*machine.programs(), *machine.settings(), *machine.home_folder(home), *machine.disk(home, packed.to_unpack_mib),
            *machine.room_in_memory(packed.memory_mib, serving), *machine.clock(home, kept.newest_entry), *kept.findings,
            *packed.findings, server, *outside]


def worst(findings: list[Finding]) -> str:
    """The state of the whole."""
    return max((finding.state for finding in findings), key=(OK, WARN, BAD).index, default=OK)
