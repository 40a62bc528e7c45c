"""A sorting session at work: what the clerk does is kept first and counts at once, whatever has been learnt of it so far."""
from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machikoba.sort import folder as place
from machikoba.sort import kept
from machikoba.sort.advise import Suggestion, suggestions
from machikoba.sort.answers import NOTHING, SKIPPED, Answers
from machikoba.sort.apprentice import Apprentice
from machikoba.sort.ask import SAMPLE_EVERY, Question, next_questions
from machikoba.sort.folder import Step
from machikoba.sort.kept import Lesson

HOLD_SECONDS = 600.0  # a message that was shown to somebody is not asked of others
MOST_SECONDS = 600.0  # beyond it somebody went away; the time then tells nothing
LESSON_EVERY = 5  # steps


@dataclass(frozen=True)
class Asked:
    """A message to be sorted. suggested: label numbers, the likeliest first; none where the clerk's own word is wanted, and
    before anything was learnt."""

    message: str
    text: str
    sample: bool
    suggested: tuple[int, ...]


class Session:
    """In the folder that `kept.save_new` made. Let one thread at a time in. Raises OSError, ValueError where it cannot be read.

    answers: what has been said so far. lesson: what was learnt last, some steps behind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool, self.dates, self.proposals = kept.load(folder)
        self._steps = place.steps(folder)
        self.answers = replay(self._steps)
        self.lesson: Lesson | None = kept.load_lesson(folder)
        self._held: dict[str, tuple[str, float]] = {}

    @property
    def apprentice(self) -> Apprentice | None:
        """What has been learnt, None before there are two labels."""
        return self.lesson.apprentice if self.lesson else None

    @property
    def lesson_is_due(self) -> bool:
        """Whether enough has been done since the last lesson."""
        return len(self._steps) - (self.lesson.steps if self.lesson else 0) >= LESSON_EVERY

    @property
    def seconds(self) -> float:
        """How long the clerks have been at it."""
        counted = (step.get("seconds") or 0.0 for step in self._steps)
        return float(sum(seconds for seconds in counted if 0 <= seconds <= MOST_SECONDS))

    @property
    def at_random(self) -> bool:
        """Whether all messages are asked at random, to prove what it can do."""
        return next((bool(step["on"]) for step in reversed(self._steps) if step["do"] == "at_random"), False)

    def learnt(self) -> None:
        """Takes over what was learnt since."""
        self.lesson = kept.load_lesson(self.folder)

    def question(self, who: str, again: str | None = None) -> Asked | None:
        """What `who` is asked now: the message `again` where it is still open, else the next; None when all are answered."""
        moment = time.monotonic()
        self._held = {person: held for person, held in self._held.items() if held[1] > moment}
        message = again if again in self.pool.row and again not in self.answers.given else None
        mine = self._held.get(who)
        if message is None and mine is not None and mine[0] not in self.answers.given:
            message = mine[0]
        found = Question(message, message is not None and self.pool.row[message] in set(self.pool.sampled.tolist())) \
            if message is not None else self._next(who)
        if found is None:
            return None
        self._held[who] = found.message, moment + HOLD_SECONDS
        likely: list[Suggestion] = [] if found.sample or self.apprentice is None else suggestions(
            self.pool, self.answers, self.apprentice, found.message, len(self.answers.names))
        return Asked(found.message, self.pool.texts[self.pool.row[found.message]], found.sample,
                     tuple(one.label for one in likely))

    def do(self, who: str, step: Step) -> None:
        """Keeps a step and what it changes. Raises ValueError and KeyError for one that cannot be done, StorageError."""
        answers = done(self.answers, step)
        if "message" in step and step["message"] not in self.pool.row:
            raise KeyError(step["message"])
        whole = step | {"by": who, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        place.append(self.folder, whole)
        self._steps.append(whole)
        self.answers = answers
        self._held.pop(who, None)

    def undo(self, who: str) -> str | None:
        """Takes the last step of `who` back; the message that then is open again. Where others have gone on since, only an
        answer can be taken back. Raises ValueError where there is nothing to take back."""
        standing = effective(self._steps)
        last = next((step for step in reversed(standing) if step["by"] == who and step["do"] != "withdraw"), None)
        if last is None:
            raise ValueError("nothing to take back")
        if last is standing[-1]:
            step: Step = {"do": "undo"}
        elif "message" in last:
            step = {"do": "withdraw", "message": last["message"]}
        else:
            raise ValueError("others have gone on since")
        whole = step | {"by": who, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        answers = replay([*self._steps, whole])
        place.append(self.folder, whole)
        self._steps.append(whole)
        self.answers = answers
        message = last.get("message")
        if message is not None:
            self._held[who] = message, time.monotonic() + HOLD_SECONDS
        return message

    def counts(self) -> dict[int, int]:
        """How many answers each label has; NOTHING and SKIPPED among them."""
        found = Counter(self.answers.given.values())
        return {label: found[label] for label in (*self.answers.names, NOTHING, SKIPPED)}

    def sorted_rows(self) -> list[tuple[str, str | None, int]]:
        """(text, date, label) of all that was answered, in the order of the messages."""
        found = []
        for i, identity in enumerate(self.pool.ids):
            label = self.answers.given.get(identity, SKIPPED)
            if label != SKIPPED:
                found.append((self.pool.texts[i], self.dates[i], label))
        return found

    def _next(self, who: str) -> Question | None:
        others = {message: SKIPPED for person, (message, _until) in self._held.items() if person != who}
        answers = Answers(given={**others, **self.answers.given}, names=self.answers.names, became=self.answers.became,
                          made=self.answers.made)
        found = next_questions(self.pool, answers, self.apprentice, 1, 1 if self.at_random else SAMPLE_EVERY)
        return found[0] if found else None


def done(answers: Answers, step: Step) -> Answers:
    """The answers after a step. Raises ValueError and KeyError as `Answers` does."""
    what: str = step["do"]
    if what == "answer":
        return answers.answer(step["message"], step["label"])
    if what == "new":
        made, label = answers.add(step["name"])
        return made.answer(step["message"], label) if "message" in step else made
    if what == "rename":
        return answers.rename(step["label"], step["name"])
    if what == "merge":
        return answers.merge(step["label"], step["into"])
    if what == "split":
        return answers.split(step["label"], step["messages"], step["name"])[0]
    if what == "withdraw":
        return answers.withdraw(step["message"])
    if what == "at_random":
        return answers
    raise ValueError(what)


def effective(steps: list[Step]) -> list[Step]:
    """The steps that stand: each "undo" takes back the one before it."""
    found: list[Step] = []
    for step in steps:
        if step["do"] == "undo":
            if found:
                found.pop()
        else:
            found.append(step)
    return found


def replay(steps: list[Step]) -> Answers:
    """The answers after all steps; one that can no longer be done, because what it was about was erased, is passed over."""
    answers = Answers()
    for step in effective(steps):
        try:
            answers = done(answers, step)
        except (ValueError, KeyError):
            continue
    return answers


def facts(session: Session) -> dict[str, Any]:
    """What a page says of how far the session is: counts, minutes, and the advice of the last lesson."""
    counts = session.counts()
    return {"sorted": sum(n for label, n in counts.items() if label != SKIPPED), "messages": len(session.pool),
            "minutes": session.seconds / 60, "advice": session.lesson.advice if session.lesson else {}}
