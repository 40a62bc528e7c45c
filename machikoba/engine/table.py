"""A whole file through a bundle: rows in, rows out, in order, in bounded memory."""
from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from machikoba import files
from machikoba.engine.runtime import Service
from machikoba.errors import OptionError
from machikoba.language import _
from machikoba.records.columns import SAMPLE_ROWS, find_columns
from machikoba.records.read import open_table
from machikoba.records.table import Row, Table

BLOCK = 2_048  # rows in memory at a time
ADDED = ("prediction", "confidence", "answered", "would_answer")
DANGEROUS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that starts so
FORMATS = (".csv", ".tsv", ".xlsx", ".jsonl")

Write = Callable[[Sequence[str]], None]


def predict_file(service: Service, path: str | Path, out: str | Path, text: str | None = None,
                 sheet: str | None = None, progress: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
    """Adds prediction, confidence, answered and would_answer to every row of the file.

    out: .csv (UTF-8 with BOM), .tsv, .xlsx or .jsonl; it appears when it is complete. Rows without text get empty cells.
    Returns counts. Raises DataError, OptionError, StorageError.
    """
    target = Path(out)
    if target.suffix.lower() not in FORMATS:
        raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="out"),
                          expected=", ".join(FORMATS), found=target.name, next=_("Name the result with such an ending."))
    if target.exists() and target.samefile(path):
        raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="out"),
                          expected=_("another file than the one that is read"), found=str(target),
                          next=_("Choose another --out; your own file is never changed."))
    table = open_table(path, sheet)
    sample = [row.cells for row in islice(table.rows(), SAMPLE_ROWS)]
    column = find_columns(table.columns, sample, table.source.where(), text, None)[0].name
    added = [name if name not in table.columns else f"machikoba_{name}" for name in ADDED]
    counts = {"rows": 0, "answered": 0, "would_answer": 0, "empty": 0}
    with files.draft_file(target) as draft, files.storing(target), _writer(draft, [*table.columns, *added]) as write:
        for block in _blocks(table):
            _predict_block(service, block, table.columns.index(column), write, counts)
            progress(counts["rows"])
    return {"file": str(target), "text_column": column, **counts}


def _blocks(table: Table) -> Iterator[list[Row]]:
    rows = table.rows()
    while block := list(islice(rows, BLOCK)):
        yield block


def _predict_block(service: Service, block: list[Row], place: int, write: Write, counts: dict[str, int]) -> None:
    filled = [row for row in block if row.cells[place].strip()]
    predictions = iter(service.predict([row.cells[place] for row in filled]))
    for row in block:
        counts["rows"] += 1
        if not row.cells[place].strip():
            counts["empty"] += 1
            write([*row.cells, "", "", "", ""])
            continue
        found = next(predictions)
        counts["answered"] += found.answered
        counts["would_answer"] += found.would_answer
        write([*row.cells, found.label, f"{found.confidence:.6f}", str(found.answered).lower(),
               str(found.would_answer).lower()])


class _writer:
    """A context that gives `write(cells)` for the format of `path`; the header is written first."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns

    def __enter__(self) -> Write:
        kind = self.path.suffix.lower()
        if kind == ".xlsx":
            from openpyxl import Workbook

            self._book = Workbook(write_only=True)
            sheet = self._book.create_sheet("machikoba")
            sheet.append([_harmless(name) for name in self.columns])
            return lambda cells: sheet.append([_harmless(cell) for cell in cells])
        self._file = self.path.open("w", encoding="utf-8" if kind == ".jsonl" else "utf-8-sig", newline="")
        if kind == ".jsonl":
            return lambda cells: print(json.dumps(dict(zip(self.columns, cells, strict=True)), ensure_ascii=False),
                                       file=self._file)
        writer = csv.writer(self._file, delimiter="\t" if kind == ".tsv" else ",", lineterminator="\r\n")
        writer.writerow([_harmless(name) for name in self.columns])
        return lambda cells: writer.writerow([_harmless(cell) for cell in cells])

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.path.suffix.lower() == ".xlsx":
            if kind is None:
                self._book.save(self.path)
        else:
            self._file.close()


def _harmless(cell: str) -> str:
    """Text that a spreadsheet shows and does not run; plain negative numbers stay numbers."""
    if cell.startswith(DANGEROUS) and not cell[1:].replace(".", "", 1).isdigit():
        return "'" + cell
    return cell
