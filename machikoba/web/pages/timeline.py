"""How a sorter stood at work, as a picture and in words."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machikoba.desk.promotion import CHANGED
from machikoba.language import _
from machikoba.store.tables import Mark

LEFT, RIGHT, TOP, BOTTOM = 40, 630, 10, 180  # of the plot, in its own units
MOST_POINTS = 300


def chart(marks: Sequence[Mark], limit: float) -> dict[str, Any]:
    """Points for SVG: upper bound and band by the number of audits, the bearable error, changes of state.

    Audits are counted anew from where another version was taken into use: what was before is not drawn.
    """
    marks = marks[max((at for at, mark in enumerate(marks) if mark.what == CHANGED), default=0):]
    points = [mark for mark in marks if mark.audited]
    points = points[::max(1, len(points) // MOST_POINTS)] + points[-1:]
    most, top = max((mark.audited for mark in points), default=1), 4 * limit

    def x(mark: Mark) -> float:
        return round(LEFT + (RIGHT - LEFT) * mark.audited / most, 1)

    def y(share: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * min(share, top) / top, 1)

    upper = [f"{x(mark)},{y(mark.upper)}" for mark in points]
    lower = [f"{x(mark)},{y(mark.lower)}" for mark in reversed(points)]
    return {"upper": " ".join(upper), "band": " ".join(upper + lower), "limit": y(limit), "audited": most,
            "changes": [(x(mark), mark.what) for mark in marks if mark.what in ("qualified", "suspended")]}


def changes(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """What happened when, newest first."""
    forms = {"start": _("began, audited from here on"), "qualified": _("promoted: {audited} checked blind, {wrong} wrong"),
             "suspended": _("suspended: {audited} checked blind, {wrong} wrong"),
             CHANGED: _("another version answers, audited from here on")}
    return [{"at": mark.at, "words": forms[mark.what].format(audited=mark.audited, wrong=mark.wrong)}
            for mark in reversed(marks) if mark.what in forms]


def standing(state: str, last: Mark, limit: float, level: float) -> str:
    """One sentence: what the audits say, and what follows from it."""
    if last.what == CHANGED:
        return _("This version has not been checked at work yet.")
    figures = {"n": f"{last.audited:,}", "wrong": f"{last.wrong:,}", "upper": f"{100 * last.upper:.1f}%",
               "limit": f"{100 * limit:.0f}%", "level": f"{100 * level:.0f}%"}
    forms = {
        "suspended": _("It erred too often ({wrong} of {n} checked blind), so it answers nothing by itself until you let "
                       "it begin again."),
        "qualified": _("Of {n} answers that people checked blind, {wrong} were wrong: in the long run at most {upper} "
                       "({level} confidence)."),
        "apprentice": _("Of {n} suggestions that people checked blind, {wrong} were wrong: in the long run at most {upper}. It "
                        "is promoted once that is {limit} or less.")}
    return forms[state].format(**figures)
