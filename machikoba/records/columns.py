"""Which column holds the message, which its label, which the date: guessed with a reason, or as the user says."""
from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from machikoba.errors import DataError
from machikoba.language import _
from machikoba.records.clean import normalise
from machikoba.records.split import DATED_SHARE, parse_date

SAMPLE_ROWS = 2_000
TEXT_WORDS = ("問い合わせ内容", "お問い合わせ内容", "本文", "内容", "メッセージ", "質問", "コメント", "text", "message", "body",
              "utterance", "inquiry", "comment", "question")
LABEL_WORDS = ("分類", "区分", "カテゴリ", "種別", "ラベル", "label", "category", "intent", "topic", "class", "type")
DATE_WORDS = ("受付日", "日付", "日時", "年月日", "受信日", "date", "time", "created")


@dataclass(frozen=True)
class Column:
    """A chosen column and why it was chosen, in the user's language."""

    name: str
    reason: str


def find_columns(columns: Sequence[str], rows: Sequence[Sequence[str]], where: str, text: str | None,
                 label: str | None) -> tuple[Column, Column | None, Column | None]:
    """The columns of message, label and date; the last two may be missing.

    rows: the first rows' cells. text, label: what the user named. Raises DataError: column_missing, no_text_column.
    """
    chosen_text = _named(columns, text, where) if text else _guess_text(columns, rows, where, label)
    chosen_label = _named(columns, label, where) if label else _guess_label(columns, rows, chosen_text.name)
    return chosen_text, chosen_label, _guess_date(columns, rows)


def _named(columns: Sequence[str], wanted: str, where: str) -> Column:
    for name in columns:
        if name == wanted or normalise(name) == normalise(wanted):
            return Column(name, _("as you said"))
    likely = difflib.get_close_matches(normalise(wanted), [normalise(name) for name in columns], n=1, cutoff=0.3)
    near = next((name for name in columns if likely and normalise(name) == likely[0]), "")
    raise DataError(
        "column_missing", _("{where} has no column {name}.").format(where=where, name=wanted),
        expected=_("one of: {names}").format(names=", ".join(columns)), found=wanted,
        next=_("Did you mean {name}?").format(name=near) if near else _("Use one of these names, or leave the option out."))


def _values(columns: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> list[str]:
    place = columns.index(name)
    return [row[place].strip() for row in rows if row[place].strip()]


def _rank(name: str, words: Sequence[str]) -> int:
    """How early in `words` the column's name, or a part of it, stands; len(words) when it does not."""
    plain = normalise(name)
    exact = [i for i, word in enumerate(words) if normalise(word) == plain]
    part = [i for i, word in enumerate(words) if normalise(word) in plain]
    return exact[0] if exact else part[0] if part else len(words)


def _guess_text(columns: Sequence[str], rows: Sequence[Sequence[str]], where: str, label: str | None) -> Column:
    best: tuple[float, str] | None = None
    for name in columns:
        values = _values(columns, rows, name)
        if not values or name == label:
            continue
        length = sum(map(len, values)) / len(values)
        distinct = len(set(values)) / len(values)
        numeric = sum(value.replace(".", "").replace("-", "").replace("/", "").isdigit() for value in values) / len(values)
        # A tell-tale name outweighs everything but a column of numbers; else the long and varied column wins.
        score = 40 * (_rank(name, TEXT_WORDS) < len(TEXT_WORDS)) + min(length, 60) * distinct - 100 * numeric
        if best is None or score > best[0]:
            best = score, name
    if best is None:
        raise DataError("no_text_column", _("{where} has no column with text.").format(where=where),
                        expected=_("a column with the customers' messages"), found=", ".join(columns),
                        next=_("Name it with --text."))
    named = _rank(best[1], TEXT_WORDS) < len(TEXT_WORDS)
    return Column(best[1], _("its name says so") if named else _("it has the longest and most varied texts"))


def _guess_label(columns: Sequence[str], rows: Sequence[Sequence[str]], text: str) -> Column | None:
    candidates = []
    for name in columns:
        values = _values(columns, rows, name)
        distinct = len(set(values))
        rank = _rank(name, LABEL_WORDS)
        if name == text or not values:
            continue
        repeated = 2 <= distinct <= max(3, 7 * len(values) // 10)
        if rank < len(LABEL_WORDS) and (repeated or distinct == 1):
            candidates.append((rank, name, _("its name says so")))
    return Column(*min(candidates)[1:]) if candidates else None


def _guess_date(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Column | None:
    found = []
    for name in columns:
        values = _values(columns, rows, name)
        if values and sum(parse_date(value) is not None for value in values) >= DATED_SHARE * len(rows):
            found.append((_rank(name, DATE_WORDS), name))
    return Column(min(found)[1], _("its cells are dates")) if found else None
