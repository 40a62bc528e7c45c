"""Sorting sessions that are open in this server: the last few in memory, and lessons given beside them."""
from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from threadpoolctl import ThreadpoolController

from machikoba.errors import RequirementError
from machikoba.language import _
from machikoba.sort.folder import STEPS
from machikoba.sort.session import Session

log = logging.getLogger("machikoba.web")
MOST_OPEN = 3  # sessions in memory: about 40 MiB each for 20,000 messages
LESSON_SECONDS = 300.0


@dataclass
class _Open:
    session: Session
    file: int  # by which one that was rewritten elsewhere is known
    lock: threading.Lock = field(default_factory=threading.Lock)
    lesson: subprocess.Popen[bytes] | None = None


class Sortings:
    """The sessions of a server."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = False

    @contextmanager
    def at(self, folder: Path) -> Iterator[Session]:
        """The session in `folder`, one thread at a time; a lesson begins afterwards where one is due.

        Raises RequirementError, sorting_gone.
        """
        one = self._find(folder)
        with one.lock, _one_thread():
            yield one.session
            if one.session.lesson_is_due and one.lesson is None and not self._stopping:
                self._teach(folder, one)

    def close(self) -> None:
        """Ends lessons that are still being given; the next server gives them again."""
        self._stopping = True
        with self._lock:
            lessons = [one.lesson for one in self._open.values() if one.lesson is not None]
        for lesson in lessons:
            lesson.kill()
            lesson.wait()

    def _find(self, folder: Path) -> _Open:
        with self._lock:
            try:
                file = (folder / STEPS).stat().st_ino
                one = self._open.get(folder)
                if one is None or one.file != file:
                    one = self._open[folder] = _Open(Session(folder), file)
            except (OSError, ValueError) as error:
                self._open.pop(folder, None)
                raise RequirementError("sorting_gone", _("This sorting is no longer there."),
                                       next=_("Send the file again to begin anew.")) from error
            self._open.move_to_end(folder)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return one

    def _teach(self, folder: Path, one: _Open) -> None:
        one.lesson = subprocess.Popen([sys.executable, "-m", "machikoba.sort.lesson", str(folder)], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        threading.Thread(target=self._await, args=(one, one.lesson), daemon=True, name="lesson").start()

    def _await(self, one: _Open, lesson: subprocess.Popen[bytes]) -> None:
        try:
            ended = lesson.wait(LESSON_SECONDS)
        except subprocess.TimeoutExpired:
            lesson.kill()
            ended = lesson.wait()
        if ended and not self._stopping:
            log.warning("a lesson ended with %d", ended)
        with one.lock:
            one.lesson = None
            one.session.learnt()


@contextmanager
def _one_thread() -> Iterator[None]:
    """NumPy's products by one thread: two on small matrices wait for each other."""
    with _threads().limit(limits=1, user_api="blas"):
        yield


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
