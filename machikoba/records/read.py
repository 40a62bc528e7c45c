"""From a file to examples: columns found, labels unified, personal data masked, every problem kept with its rows."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from machikoba.errors import DataError
from machikoba.language import _
from machikoba.records.clean import canonical_labels, example_ids, normalise
from machikoba.records.columns import SAMPLE_ROWS, Column, find_columns
from machikoba.records.origin import FILE
from machikoba.records.privacy import MaskedNumber, mask, refuse_my_number
from machikoba.records.table import Row, Source, Table
from machikoba.records.text_files import lines, open_text
from machikoba.records.workbooks import OLE_MAGIC, cells, open_workbook

WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")
SHOWN_ROWS = 10
TEXTS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Example:
    """One message. text: personal data masked; original: as written; row: its row in the file; origin: as of `origin`."""

    id: str
    text: str
    original: str
    label: str | None
    date: str | None
    row: int
    origin: str = FILE


@dataclass(frozen=True)
class Records:
    """Examples and what was done to get them. Row numbers are those of the file."""

    source: Source
    columns: tuple[str, ...]
    text: Column
    label: Column | None
    date: Column | None
    examples: list[Example]
    rows_read: int
    rows_without_text: list[int]
    rows_without_label: list[int]
    merged_labels: dict[str, str]
    personal: dict[str, int]
    lone_numbers: list[MaskedNumber]
    first_rows: tuple[tuple[str, ...], ...] = ()  # all their cells, as they are

    def label_counts(self) -> Counter[str]:
        """Examples per label, the most frequent first."""
        return Counter(example.label for example in self.examples if example.label is not None)


def open_table(path: str | Path, sheet: str | None = None) -> Table:
    """The table in a workbook or text file. Raises DataError for whatever makes it unreadable."""
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError("not_a_file", _("{file} is a folder.").format(file=path), expected=_("an Excel or CSV file"),
                            found=_("a folder"), next=_("Name a file inside it."))
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise DataError("file_empty", _("{where} is empty.").format(where=path.name), expected=_("a table with a header"),
                            found=_("0 bytes"), next=_("Choose the file that holds the inquiries."))
        kind = path.suffix.lower()
        if kind not in WORKBOOKS + TEXTS:
            raise DataError("unknown_file_type", _("{file} is of a kind that cannot be read.").format(file=path.name),
                            expected=", ".join(WORKBOOKS + TEXTS), found=kind or _("no extension"),
                            next=_("Export the inquiries as .xlsx or .csv."))
        if kind in WORKBOOKS or head.startswith((b"PK\x03\x04", OLE_MAGIC)):
            return open_workbook(path, sheet)
        if sheet is not None:
            raise DataError("sheet_missing", _("{file} has no sheets.").format(file=path.name), expected=", ".join(WORKBOOKS),
                            found=kind, next=_("Leave --sheet out."))
        return open_text(path)
    except FileNotFoundError as error:
        raise DataError("file_missing", _("{file} does not exist.").format(file=path), expected=_("an Excel or CSV file"),
                        found=_("nothing there"), next=_("Check the name and the folder.")) from error
    except PermissionError as error:
        raise DataError("file_forbidden", _("{file} may not be read.").format(file=path), expected=_("permission to read"),
                        found=str(error.strerror), next=_("Close it in other programs or ask whoever owns it.")) from error


def every_text(path: Path) -> Iterator[str]:
    """All that is written in a file, whether or not it can be used: cells of every sheet, or lines. Raises DataError."""
    with path.open("rb") as file:
        head = file.read(8)
    packed = path.suffix.lower() in WORKBOOKS or head.startswith((b"PK\x03\x04", OLE_MAGIC))
    yield from cells(path) if packed else lines(path)


def read(path: str | Path, *, text: str | None = None, label: str | None = None, sheet: str | None = None,
         need_label: bool = True) -> Records:
    """The examples in the file at `path`.

    text, label: names of columns, guessed when None. need_label: rows without a label are left out, and a file without
    a label column, or with one label only, is refused. Raises DataError.
    """
    table = open_table(path, sheet)
    where = table.source.where()
    rows: list[Row] = list(table.rows())
    lone = refuse_my_number(table.columns, [(row.number, row.cells) for row in rows], where)
    sample = [row.cells for row in islice(rows, SAMPLE_ROWS)]
    text_column, label_column, date_column = find_columns(table.columns, sample, where, text, label)
    if need_label and label_column is None:
        raise DataError(
            "no_label_column", _("{where} has no column that says what kind each message is.").format(where=where),
            expected=_("a column such as 分類 or label, with a few kinds that repeat"), found=", ".join(table.columns),
            next=_("Add such a column and fill it for some hundred messages, or name yours with --label."))
    place = {name: i for i, name in enumerate(table.columns)}
    kept: list[Row] = []
    no_text, no_label = [], []
    for row in rows:
        if not row.cells[place[text_column.name]].strip():
            no_text.append(row.number)
        elif need_label and label_column and not row.cells[place[label_column.name]].strip():
            no_label.append(row.number)
        else:
            kept.append(row)
    originals = [row.cells[place[text_column.name]] for row in kept]
    personal: Counter[str] = Counter()
    texts = []
    for original in originals:
        masked, found = mask(original)
        personal.update(finding.kind for finding in found)
        texts.append(masked)
    labels: list[str] | None = None
    merged: dict[str, str] = {}
    if label_column is not None:
        labels, merged = canonical_labels([row.cells[place[label_column.name]].strip() for row in kept])
    if need_label and labels is not None and len(set(labels)) < 2:
        raise DataError(
            "one_label", _("All messages of {where} are of one kind.").format(where=where),
            expected=_("at least two kinds in column {name}").format(name=label_column.name if label_column else ""),
            found=", ".join(sorted(set(labels))) or _("no filled cell"),
            next=_("Check that the right column was chosen (--label), or sort some messages into kinds first."))
    dates = [row.cells[place[date_column.name]] if date_column else None for row in kept]
    examples = [
        Example(identity, masked, original, labels[i] if labels and labels[i] else None, dates[i], kept[i].number)
        for i, (identity, masked, original) in enumerate(zip(example_ids(texts), texts, originals, strict=True))]
    return Records(table.source, table.columns, text_column, label_column, date_column, examples, len(rows), no_text,
                   no_label, merged, dict(personal), lone, tuple(row.cells for row in rows[:SHOWN_ROWS]))


def same_label(one: str, other: str) -> bool:
    """Whether two spellings mean one label."""
    return normalise(one).replace(" ", "") == normalise(other).replace(" ", "")
