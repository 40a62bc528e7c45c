"""`machikoba check`: what is in the file, in plain words, and whether it will do."""
from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machikoba.language import _
from machikoba.records.clean import near_duplicate_groups, normalise
from machikoba.records.privacy import PLACEHOLDERS
from machikoba.records.read import Records, read, same_label
from machikoba.records.split import parse_date

LEAST_PER_LABEL = 5  # examples; fewer cannot be judged by five folds
FEW_EXAMPLES = 8  # of a label; below it the label is hardly learnt
SHOWN_ROWS = 5
SHOWN_LABELS = 30


@dataclass(frozen=True)
class Report:
    """What `check` found. Row numbers are those of the file; `labels` counts from the most frequent down.

    all_columns, first_rows: the table as it is, as far as it was asked for.
    """

    file: str
    sheet: str | None
    encoding: str | None
    source_reason: str
    rows_read: int
    messages: int
    columns: dict[str, dict[str, str] | None]
    labels: dict[str, int]
    small_labels: dict[str, list[int]]
    merged_labels: dict[str, str]
    rows_without_text: list[int]
    rows_without_label: list[int]
    exact_duplicates: list[int]
    near_duplicates: list[int]
    contradictions: list[list[int]]
    personal: dict[str, int]
    lone_numbers: list[int]
    characters: dict[str, int]
    dates: list[str] | None
    none_label: str | None
    all_columns: list[str]
    first_rows: list[list[str]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The report in plain words, a line each."""
        place = self.file if self.sheet is None else _("{file}, sheet {sheet}").format(file=self.file, sheet=self.sheet)
        out = [_("read     {place}: {messages:,} messages in {rows:,} rows").format(
            place=place, messages=self.messages, rows=self.rows_read)]
        if self.source_reason:
            out.append("         " + self.source_reason)
        for what, column in ((_("message"), self.columns["text"]), (_("label"), self.columns["label"]),
                             (_("date"), self.columns["date"])):
            if column:
                out.append(_("column   {what}: {name} ({reason})").format(what=what, **column))
        if self.labels:
            counts = _some([f"{name} {n:,}" for name, n in self.labels.items()], SHOWN_LABELS)
            out.append(_("labels   {n}: {counts}").format(n=len(self.labels), counts=counts))
        else:
            out.append(_("labels   none yet: tuning needs a column that says what kind each message is"))
        if self.dates:
            out.append(_("dates    {first} to {last}").format(first=self.dates[0], last=self.dates[1]))
        out.append(_("length   half of the messages have up to {half} characters, the longest {most:,}").format(
            half=self.characters["median"], most=self.characters["most"]))
        out += self._problems()
        return out

    def _problems(self) -> list[str]:
        out = []
        for name, rows in list(self.small_labels.items())[:SHOWN_ROWS]:
            out.append(_("few      only {n} messages of {label} (rows {rows}): hardly enough to learn from").format(
                n=len(rows), label=name, rows=_rows(rows)))
        if len(self.small_labels) > SHOWN_ROWS:
            out.append(_("few      and as few of {n} more labels").format(n=len(self.small_labels) - SHOWN_ROWS))
        for other, kept in self.merged_labels.items():
            out.append(_("spelling {other} is counted as {kept}").format(other=other, kept=kept))
        if self.rows_without_text:
            out.append(_("empty    {n} rows without a message (rows {rows}) are left out").format(
                n=len(self.rows_without_text), rows=_rows(self.rows_without_text)))
        if self.rows_without_label:
            out.append(_("empty    {n} rows without a label (rows {rows}) are left out").format(
                n=len(self.rows_without_label), rows=_rows(self.rows_without_label)))
        if self.exact_duplicates or self.near_duplicates:
            out.append(_("twice    {exact} messages are there again word for word, {near} almost; they count once in "
                         "the test (rows {rows})").format(exact=len(self.exact_duplicates), near=len(self.near_duplicates),
                                                          rows=_rows(self.exact_duplicates + self.near_duplicates)))
        for rows in self.contradictions[:SHOWN_ROWS]:
            out.append(_("differs  the same message has different labels: rows {rows}").format(rows=_rows(rows)))
        if self.personal:
            kinds = ", ".join(f"{PLACEHOLDERS[kind]} {n:,}" for kind, n in sorted(self.personal.items()))
            out.append(_("masked   personal data, before anything is learnt: {kinds}").format(kinds=kinds))
        if self.lone_numbers:
            out.append(_("masked   12-digit numbers that could be My Number (rows {rows}); please look").format(
                rows=_rows(self.lone_numbers)))
        return out


def check(path: str | Path, *, text: str | None = None, label: str | None = None, sheet: str | None = None,
          none_label: str | None = None, rows: int = 0) -> Report:
    """Reads the file and says what is in it; a file without labels is fine here. rows: how many are shown as they are.

    Raises DataError.
    """
    return report(read(path, text=text, label=label, sheet=sheet, need_label=False), none_label, rows)


def report(records: Records, none_label: str | None = None, rows: int = 0) -> Report:
    """The report on records already read."""
    examples = records.examples
    group = near_duplicate_groups([example.text for example in examples])
    plain = [normalise(example.text) for example in examples]
    first: dict[str, int] = {}
    exact, near, labels_of = [], [], defaultdict(set)
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        if plain[i] in first:
            exact.append(example.row)
        elif group[i] != i:
            near.append(example.row)
        first.setdefault(plain[i], i)
        rows_of[plain[i]].append(example.row)
        if example.label is not None:
            labels_of[plain[i]].add(example.label)
    counts: Counter[str] = records.label_counts()
    small = {name: [e.row for e in examples if e.label == name] for name, n in counts.items() if n < FEW_EXAMPLES}
    if none_label is not None:
        small = {name: rows for name, rows in small.items() if not same_label(name, none_label)}
    lengths = np.array([len(example.text) for example in examples] or [0])
    dates = sorted(date for example in examples if (date := parse_date(example.date)))
    columns = {name: asdict(column) if column else None
               for name, column in (("text", records.text), ("label", records.label), ("date", records.date))}
    return Report(
        records.source.path.name, records.source.sheet, records.source.encoding, records.source.reason,
        records.rows_read, len(examples), columns, dict(counts.most_common()), small, records.merged_labels,
        records.rows_without_text, records.rows_without_label, exact, near,
        [rows_of[text] for text, labels in labels_of.items() if len(labels) > 1], records.personal,
        [number.row for number in records.lone_numbers],
        {"median": int(np.median(lengths)), "most": int(lengths.max())},
        [dates[0].date().isoformat(), dates[-1].date().isoformat()] if dates else None, none_label,
        list(records.columns), [list(cells) for cells in records.first_rows[:rows]])


def _rows(rows: list[int]) -> str:
    return _some([str(row) for row in rows], SHOWN_ROWS)


def _some(names: list[str], shown: int) -> str:
    first = ", ".join(names[:shown])
    return first if len(names) <= shown else _("{rows} and {n} more").format(rows=first, n=len(names) - shown)
