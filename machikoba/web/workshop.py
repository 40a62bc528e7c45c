"""What every request works with: the store, the engine and its lanes, and who has just been seen."""
from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from machikoba.engine.lanes import Lanes
from machikoba.engine.runtime import Engine
from machikoba.store.database import Database
from machikoba.store.people import Visitor
from machikoba.web.sorting import Sortings

T = TypeVar("T")
FRESH_SECONDS = 1.0  # how long a key that was ended may still open
MOST_FRESH = 10_000
LOCAL = "local_"  # what the owner sends at the console begins so


class Fresh(Generic[T]):
    """Answers of the store that are used again for a second, so that a busy client does not ask it each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._known: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._clock, self._lock = clock, Lock()

    def get(self, key: Hashable) -> T | None:
        """What was kept within the last second."""
        with self._lock:
            found = self._known.get(key)
            return found[1] if found and self._clock() - found[0] < FRESH_SECONDS else None

    def keep(self, key: Hashable, value: T) -> T:
        with self._lock:
            self._known[key] = (self._clock(), value)
            self._known.move_to_end(key)
            if len(self._known) > MOST_FRESH:
                self._known.popitem(last=False)
        return value

    def forget(self) -> None:
        """Asks the store again from now on."""
        with self._lock:
            self._known.clear()


@dataclass
class Workshop:
    """One running server.

    local: what whoever started the server sends to ask as the owner, while nobody has an account or a key; "" where there is
    no such way. Only the console has shown it, so that nobody else is taken for the owner: not another user of this machine,
    and not a visitor through a proxy on it.
    """

    home: Path
    database: Database
    engine: Engine
    lanes: Lanes
    local: str
    visitors: Fresh[Visitor] = field(default_factory=Fresh)
    bundles: Fresh[Path] = field(default_factory=Fresh)  # (business, name) -> folder
    states: Fresh[str] = field(default_factory=Fresh)  # (business, name, folder) -> how it stands at work
    sortings: Sortings = field(default_factory=Sortings)
    stopping: bool = False

    @classmethod
    def start(cls, home: Path, database: Database, local: bool) -> Workshop:
        engine = Engine(home)
        return cls(home, database, engine, Lanes(engine), LOCAL + secrets.token_urlsafe(18) if local else "")

    def close(self) -> None:
        """Answers what was accepted, then lets go of everything."""
        self.stopping = True
        self.lanes.close()
        self.sortings.close()
        self.database.close()
