"""Many clients, one model: what waits is answered together, in turn by business, and never without bound.

A lane is one thread in front of one base. While it answers, requests gather; as soon as it is free it takes some of each
business that waits. Nothing waits on purpose: an idle lane answers a single message at once.
"""
from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from machikoba.engine.runtime import Engine, Service
from machikoba.errors import MachikobaError
from machikoba.language import _
from machikoba.tasks.classify import Prediction

MOST_WAITING = 4_096  # texts in front of one lane
AT_ONCE = 64  # texts answered together: more would only make the first of them wait for the last
MEASURED = 0.2  # weight of the newest batch in the time per text


class BusyError(MachikobaError):
    """More waits than can be answered soon. retry_after_seconds: when it is worth coming again."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("busy", _("There is too much to do at the moment."), expected="", found="",
                         next=_("Try again in {n} seconds.").format(n=retry_after_seconds))
        self.retry_after_seconds = retry_after_seconds


@dataclass(eq=False)
class _Asked:
    """A request on its way: texts from `taken` on still wait, `found` are the answers so far."""

    service: Service
    texts: Sequence[str]
    future: Future[list[Prediction]]
    taken: int = 0
    found: dict[int, Prediction] = field(default_factory=dict)


class Lane:
    """One thread that answers for one base (or for bundles without one)."""

    def __init__(self, engine: Engine, name: str, most_waiting: int = MOST_WAITING) -> None:
        self.engine, self.most_waiting = engine, most_waiting
        self._queues: OrderedDict[str, deque[_Asked]] = OrderedDict()  # by business, whose turn is next first
        self._waiting, self._closed, self._seconds_per_text = 0, False, 0.01
        self._changed = threading.Condition()
        self.name = name
        self._thread = threading.Thread(target=self._run, name=f"lane {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Texts that wait."""
        return self._waiting

    def ask(self, service: Service, texts: Sequence[str], business: str) -> Future[list[Prediction]]:
        """Predictions to come; cancelling takes back what has not begun. Raises BusyError.

        A lane that is full refuses; an empty one takes any request, however large.
        """
        future: Future[list[Prediction]] = Future()
        if not texts:
            future.set_result([])
            return future
        with self._changed:
            if self._closed or (self._waiting and self._waiting + len(texts) > self.most_waiting):
                raise BusyError(self._patience())
            self._waiting += len(texts)
            self._queues.setdefault(business, deque()).append(_Asked(service, texts, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Takes nothing more, answers what was accepted, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _patience(self) -> int:
        return int(min(60, max(1, self._waiting * self._seconds_per_text)))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queues:
                    if self._closed:
                        return
                    self._changed.wait()
                chosen = self._take()
            began = time.monotonic()
            self._answer(chosen)
            number = sum(end - start for _asked, start, end in chosen)
            if number:
                spent = (time.monotonic() - began) / number
                self._seconds_per_text += MEASURED * (spent - self._seconds_per_text)

    def _take(self) -> list[tuple[_Asked, int, int]]:
        """Up to AT_ONCE texts: a fair share of the oldest request of each business, until all are asked or none wait."""
        chosen: list[tuple[_Asked, int, int]] = []
        room = AT_ONCE
        while room and self._queues:
            share = max(1, room // len(self._queues))
            for business in list(self._queues):
                if not room:
                    break
                queue = self._queues[business]
                asked = queue[0]
                if asked.taken == 0 and not asked.future.set_running_or_notify_cancel():
                    number = 0
                    self._waiting -= len(asked.texts)
                    queue.popleft()
                else:
                    number = min(share, room, len(asked.texts) - asked.taken)
                    chosen.append((asked, asked.taken, asked.taken + number))
                    asked.taken += number
                    self._waiting -= number
                    room -= number
                    if asked.taken == len(asked.texts):
                        queue.popleft()
                self._queues.move_to_end(business)
                if not queue:
                    del self._queues[business]
        return chosen

    def _answer(self, chosen: Sequence[tuple[_Asked, int, int]]) -> None:
        """Answers together; where that fails, each by itself, so that one bundle's fault is not another's."""
        parts = [(asked, start, end) for asked, start, end in chosen if not asked.future.done()]
        try:
            found = self.engine.answer([(asked.service, asked.texts[start:end]) for asked, start, end in parts])
        except Exception as error:
            if len(parts) == 1:
                self._fail(parts[0][0], error)
            else:
                for part in parts:
                    self._answer([part])
            return
        for (asked, start, end), predictions in zip(parts, found, strict=True):
            asked.found.update(zip(range(start, end), predictions, strict=True))
            if len(asked.found) == len(asked.texts):
                asked.future.set_result([asked.found[i] for i in range(len(asked.texts))])

    def _fail(self, asked: _Asked, error: Exception) -> None:
        """Tells whoever asked; the rest of the request is not read any more."""
        asked.future.set_exception(error)
        with self._changed:
            for business, queue in list(self._queues.items()):
                if asked in queue:
                    queue.remove(asked)
                    self._waiting -= len(asked.texts) - asked.taken
                    if not queue:
                        del self._queues[business]


class Lanes:
    """A lane for each base, made when it is first needed."""

    def __init__(self, engine: Engine, most_waiting: int = MOST_WAITING) -> None:
        self.engine, self.most_waiting = engine, most_waiting
        self._lanes: dict[object, Lane] = {}
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, service: Service, texts: Sequence[str], business: str) -> Future[list[Prediction]]:
        """See `Lane.ask`."""
        key = service.reader.trunk if service.reader else None
        with self._lock:
            if self._closed:
                raise BusyError(5)
            if key not in self._lanes:
                name = service.reader.base.name if service.reader else "words"
                self._lanes[key] = Lane(self.engine, name, self.most_waiting)
            lane = self._lanes[key]
        return lane.ask(service, texts, business)

    @property
    def waiting(self) -> dict[str, int]:
        """Texts that wait, by lane."""
        with self._lock:
            lanes = list(self._lanes.values())
        return {lane.name: lane.waiting for lane in lanes}

    def close(self) -> None:
        """Answers what was accepted, and ends."""
        with self._lock:
            self._closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.close()

