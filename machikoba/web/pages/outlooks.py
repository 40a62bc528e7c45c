"""How far a sorting is, and what would help it, in words that anybody understands."""
from __future__ import annotations

from typing import Any

from machikoba.language import _, _n
from machikoba.records.check import FEW_EXAMPLES
from machikoba.sort.outlook import LEAST_SAMPLE
from machikoba.sort.session import Session


def words(session: Session, how: dict[str, Any]) -> list[str]:
    """Sentences about how good it is and what is still needed. how: `sort.session.facts`."""
    outlook = how["advice"].get("outlook")
    if outlook is None or outlook["right"]["n"] < LEAST_SAMPLE:
        left = LEAST_SAMPLE - (outlook["right"]["n"] if outlook else 0)
        return [_n("How good it is can be said after {n} more message picked by chance; about every fifth is.",
                   "How good it is can be said after {n} more messages picked by chance; about every fifth is.",
                   left).format(n=left)]
    right = outlook["right"]
    found = [_("Of the {n} messages picked by chance, it would have sorted {k} as you did.").format(
        n=right["n"], k=right["k"])]
    if outlook["doubled"] is not None and outlook["doubled"] > right["value"] + 0.01:
        found.append(_("With twice as many sorted, about {n} in 100 are to be expected.").format(
            n=round(100 * outlook["doubled"])))
    needed, left = outlook["needed"], len(session.pool.sampled) - right["n"]
    if needed is None:
        found.append(_("It still errs too often to answer anything alone. Sort on, or let it work as an apprentice: a person "
                       "then confirms each of its answers."))
    elif needed == 0:
        found.append(_("Perhaps it may answer part of the messages alone already: make the sorter, and the test will tell."))
    elif needed <= left:
        found.append(_n("About {n} more message picked by chance would prove that it may answer part of them alone. Until "
                        "then it works as an apprentice.",
                        "About {n} more messages picked by chance would prove that it may answer part of them alone. Until "
                        "then it works as an apprentice.", needed).format(n=f"{needed:,}"))
    else:
        found.append(_("To prove that it may answer part of the messages alone, about {n} more picked by chance are needed; this "
                       "file holds {left}. It works as an apprentice, and the desk brings the rest.").format(
                           n=f"{needed:,}", left=f"{left:,}"))
    return found


def advice(session: Session) -> dict[str, Any]:
    """Kinds to merge or to part, as far as they are still there; of few messages chance looks like likeness."""
    names, counts = session.answers.names, session.counts()
    small = [names[label] for label in (_of(session).get("outlook") or {}).get("few", []) if label in names]
    mixed = [pair | {"names": [names[label] for label in pair["labels"]]} for pair in _of(session).get("mixed", [])
             if all(label in names and counts[label] >= FEW_EXAMPLES for label in pair["labels"])]
    return {"small": small, "mixed": mixed[:5], "divided": [one | {"kind": names[one["label"]]} for one in divided(session)][:5]}


def divided(session: Session) -> list[dict[str, Any]]:
    """Kinds that seem to hold two topics."""
    return [one for one in _of(session).get("divided", []) if one["label"] in session.answers.names]


def _of(session: Session) -> dict[str, Any]:
    return session.lesson.advice if session.lesson else {}
