"""A person's traces: phone, mail, name, LINE id, found in texts however they are written there."""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from machikoba.errors import OptionError
from machikoba.language import _
from machikoba.records.clean import normalise

LEAST_CHARACTERS, LEAST_DIGITS = 2, 4  # of what is looked for; less would be found in most texts
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
# Katakana as hiragana, and the forms of kanji that one family writes and another does not.
_ALIKE = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)} | str.maketrans("髙﨑碕濱濵邊邉齊齋斎澤廣嶋嶌櫻眞",
                                                                                     "高崎崎浜浜辺辺斉斉斉沢広島島桜真")
_GAP = r"[\s\-().・/_]{0,3}"
_NUMBER = re.compile(r"[+\d\s\-().・/_]+")
_EXAMPLE_ID = re.compile(r"([0-9a-f]{16})(?:-\d+)?")
_ROW_ID = re.compile(r"[0-9a-f]{32}")
_LINE_ID = re.compile(r"u[0-9a-f]{32}")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff々]")


@dataclass(frozen=True)
class Trace:
    """One thing that is looked for. kind: "phone", "mail", "line_id", "id" or "text"."""

    kind: str
    pattern: re.Pattern[str]
    id: str | None = None


@dataclass(frozen=True)
class Person:
    """All that is looked for together."""

    traces: tuple[Trace, ...]

    @classmethod
    def known_by(cls, texts: Sequence[str]) -> Person:
        """Whoever any of `texts` tells of. Raises OptionError, trace_too_short."""
        return cls(tuple(_trace(text) for text in texts))

    def within(self, texts: Iterable[str | None], id: str | None = None) -> bool:
        """Whether any of `texts`, or the id of what they belong to, is the person's."""
        if id is not None and any(trace.id is not None and trace.id == _base(id) for trace in self.traces):
            return True
        whole = "\0".join(folded(text) for text in texts if text)
        return any(trace.pattern.search(whole) for trace in self.traces)

    @property
    def kinds(self) -> set[str]:
        return {trace.kind for trace in self.traces}


def folded(text: str) -> str:
    """The form in which traces are compared: of width, case, spaces, kana and the commonest variant kanji nothing is left."""
    return normalise(text.translate(_INVISIBLE)).translate(_ALIKE)


def _trace(text: str) -> Trace:
    wanted = folded(text)
    if _EXAMPLE_ID.fullmatch(wanted) or _ROW_ID.fullmatch(wanted):
        return Trace("id", _whole(re.escape(wanted)), _base(wanted))
    if _LINE_ID.fullmatch(wanted):
        return Trace("line_id", _whole(re.escape(wanted)))
    if "@" in wanted and " " not in wanted:
        return Trace("mail", re.compile(rf"(?<![a-z0-9._%+-]){re.escape(wanted)}(?![a-z0-9-]|\.[a-z0-9])"))
    digits = re.sub(r"\D", "", wanted)
    if _NUMBER.fullmatch(wanted) and len(digits) >= LEAST_DIGITS:
        return Trace("phone", _number(digits, wanted.startswith("+")))
    if len(wanted.replace(" ", "")) < LEAST_CHARACTERS or _NUMBER.fullmatch(wanted):
        raise OptionError(
            "trace_too_short", _("This is too short to know a person by."),
            expected=_("a phone number, a mail address, a LINE id, a name of at least {n} characters, or the id of a "
                       "message").format(n=LEAST_CHARACTERS), found=_("{n} characters").format(n=len(wanted)),
            next=_("Give the whole name, or another thing that is known of the person."))
    return Trace("text", re.compile(_words(wanted)))


def _number(digits: str, international: bool) -> re.Pattern[str]:
    """A number with any separators; one of Japan also with its country code."""
    spread = partial(_GAP.join)
    national = digits.removeprefix("00").removeprefix("81").removeprefix("0")
    foreign = international and not digits.startswith("81")
    if foreign or not (len(national) in (9, 10) and (digits.startswith(("0", "81")))):
        return re.compile(rf"(?<!\d){spread(digits)}(?!\d)")
    return re.compile(rf"(?<!\d)(?:(?:00)?81{_GAP}(?:0{_GAP})?|0{_GAP}){spread(national)}(?!\d)")


def _words(wanted: str) -> str:
    """A name or any text: with or without spaces between Japanese characters; Latin letters only as whole words."""
    parts = []
    for word in wanted.split(" "):
        step = r"[\s・]?" if _CJK.search(word) else ""
        parts.append(step.join(map(re.escape, word)))
    found = r"[\s・]*".join(parts)
    return (r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", wanted) else "") + found + (
        r"(?![a-z0-9])" if re.search(r"[a-z0-9]$", wanted) else "")


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])")


def _base(id: str) -> str:
    """An example's id without the number of its copy: copies are the same text."""
    found = _EXAMPLE_ID.fullmatch(id)
    return found[1] if found else id
