"""What an examination finds."""
from __future__ import annotations

from dataclasses import asdict, dataclass

from machikoba.errors import MachikobaError

OK, WARN, BAD = "ok", "warn", "bad"  # from well to ill


@dataclass(frozen=True)
class Finding:
    """name: what was looked at, the same in every language; state: ok, warn or bad; found: the fact; next: what to do."""

    name: str
    state: str
    found: str
    next: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, found: str) -> Finding:
    return Finding(name, OK, found)


def warn(name: str, found: str, next: str) -> Finding:
    return Finding(name, WARN, found, next)


def bad(name: str, found: str, next: str) -> Finding:
    return Finding(name, BAD, found, next)


def told(name: str, error: MachikobaError) -> Finding:
    """An error that an examination met, as a finding."""
    return bad(name, f"{error.message} {error.found}".rstrip(), error.next)
