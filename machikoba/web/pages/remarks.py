"""What is worth knowing of a file before it is learnt from, and which kinds ask for care: in words that anyone understands."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machikoba.language import _, _n
from machikoba.records.check import FEW_EXAMPLES
from machikoba.records.clean import normalise
from machikoba.records.privacy import PLACEHOLDERS

SHOWN = 5  # rows of each sort
# Parts of a kind's name that tell of something which must not be answered wrongly even once.
CAREFUL = (
    "アレルギ", "料金", "値段", "価格", "金額", "支払", "返金", "キャンセル", "取消", "取り消", "解約", "医療", "体調", "病気",
    "けが", "怪我", "薬", "健康", "事故", "緊急", "苦情", "クレーム", "ご意見", "allerg", "price", "charge", "payment", "refund",
    "cancel", "medic", "health", "accident", "emergenc", "complain")
NONE = ("その他", "それ以外", "該当なし", "不明", "other", "others", "none", "misc", "else", "unknown", "out of scope", "oos")


def careful(label: str) -> bool:
    """Whether a kind should always go to a person, by its name."""
    plain = normalise(label)
    return any(part in plain for part in CAREFUL)


def none_of(labels: Sequence[str]) -> str:
    """The kind that means "something else", by its name; "" where there is none."""
    return next((label for label in labels if normalise(label) in NONE), "")


def remarks(report: dict[str, Any]) -> list[str]:
    """Each with the rows of the file it is about."""
    found = []
    for label, at in list(report["small_labels"].items())[:SHOWN]:
        found.append(_n("Of “{label}” there is {n} message only (row {rows}): hardly enough to learn from. Add some, or give it "
                        "the kind of a neighbour.", "Of “{label}” there are {n} messages only (rows {rows}): hardly enough to "
                        "learn from, {least} is a beginning. Add some, or give them the kind of a neighbour.", len(at)).format(
                            label=label, n=len(at), rows=rows(at), least=FEW_EXAMPLES))
    if len(report["small_labels"]) > SHOWN:
        found.append(_("And {n} more kinds have as few.").format(n=len(report["small_labels"]) - SHOWN))
    for other, kept in report["merged_labels"].items():
        found.append(_("“{other}” is counted as “{kept}”: they differ only in how they are written.").format(
            other=other, kept=kept))
    if at := report["rows_without_text"]:
        found.append(_n("{n} row has no message and is left out (row {rows}).",
                        "{n} rows have no message and are left out (rows {rows}).", len(at)).format(n=len(at), rows=rows(at)))
    if at := report["rows_without_label"]:
        found.append(_n("{n} row has no kind and is left out (row {rows}).",
                        "{n} rows have no kind and are left out (rows {rows}).", len(at)).format(n=len(at), rows=rows(at)))
    if at := report["exact_duplicates"] + report["near_duplicates"]:
        found.append(_n("{n} message is there more than once, word for word or almost (row {rows}); in the test it counts once.",
                        "{n} messages are there more than once, word for word or almost (rows {rows}); in the test they count "
                        "once.", len(at)).format(n=len(at), rows=rows(at)))
    for at in report["contradictions"][:SHOWN]:
        found.append(_("The same message has different kinds in the rows {rows}. Decide for one.").format(rows=rows(at)))
    if report["personal"]:
        kinds = ", ".join(f"{PLACEHOLDERS[kind]} {n:,}" for kind, n in sorted(report["personal"].items()))
        found.append(_("Personal data is masked before anything is learnt: {kinds}.").format(kinds=kinds))
    if at := report["lone_numbers"]:
        found.append(_("Twelve digits that could be a My Number are masked (rows {rows}). Please look at them.").format(
            rows=rows(at)))
    if report["encoding"] and report["source_reason"]:
        found.append(report["source_reason"])
    return found


def rows(at: Sequence[int]) -> str:
    """The first rows of many."""
    first = ", ".join(f"{row:,}" for row in at[:SHOWN])
    return first if len(at) <= SHOWN else _("{rows} and {n} more").format(rows=first, n=f"{len(at) - SHOWN:,}")
