"""What every kind of file becomes: named columns and numbered rows of text."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from machikoba.errors import DataError
from machikoba.language import _

MAX_TEXT_CHARACTERS = 32_767  # Excel's own limit for one cell


@dataclass(frozen=True)
class Source:
    """Where rows come from. encoding: of a text file; reason: why sheet or encoding was chosen, for the user."""

    path: Path
    sheet: str | None = None
    encoding: str | None = None
    reason: str = ""

    def where(self, row: int | None = None) -> str:
        """"row 17 of 問い合わせ.xlsx, sheet 4月", in the user's language."""
        place = self.path.name if self.sheet is None else _("{file}, sheet {sheet}").format(
            file=self.path.name, sheet=self.sheet)
        return place if row is None else _("row {row} of {place}").format(row=row, place=place)


@dataclass(frozen=True)
class Row:
    """number: as a person sees it in Excel, or the line number in a text file, from 1."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """columns: their names, in order; `rows()` reads the file again each time, row by row."""

    source: Source
    columns: tuple[str, ...]
    header_row: int
    _read: Callable[[], Iterator[Row]]

    def rows(self) -> Iterator[Row]:
        """Non-empty rows below the header, padded to the width of the header.

        Raises DataError: cell_too_long, row_too_wide, null_bytes, and whatever makes the file unreadable further down.
        """
        width = len(self.columns)
        for row in self._read():
            if row.number <= self.header_row or not any(row.cells):
                continue
            for cell in row.cells:
                _check_cell(cell, self.source, row.number)
            extra = [cell for cell in row.cells[width:] if cell]
            if extra:
                raise DataError(
                    "row_too_wide", _("{where} has more cells than the header.").format(where=self.source.where(row.number)),
                    expected=_("{n} columns").format(n=width), found=_("{n} columns").format(n=len(row.cells)),
                    next=_("A comma or tab inside a text needs quotes around it; correct that row and save again."))
            yield Row(row.number, (row.cells + ("",) * width)[:width])


def _check_cell(cell: str, source: Source, number: int) -> None:
    if len(cell) > MAX_TEXT_CHARACTERS:
        raise DataError(
            "cell_too_long", _("A cell in {where} is too long.").format(where=source.where(number)),
            expected=_("at most {n:,} characters").format(n=MAX_TEXT_CHARACTERS),
            found=_("{n:,} characters").format(n=len(cell)), next=_("Shorten the text or remove that row."))
    if "\0" in cell:
        raise DataError(
            "null_bytes", _("{where} holds null characters, which no text has.").format(where=source.where(number)),
            expected=_("plain text"), found=_("a null character"),
            next=_("The file was damaged or is not a table; export it again from the program it came from."))


def with_header(source: Source, read: Callable[[], Iterator[Row]]) -> Table:
    """Finds the header: the first row with two filled cells, or with one where the file has a single column.

    Raises DataError: file_empty, header_only, duplicate_headers.
    """
    first: list[Row] = []
    for row in read():
        if any(cell.strip() for cell in row.cells):
            first.append(row)
        if len(first) == 12:
            break
    if not first:
        raise DataError("file_empty", _("{where} is empty.").format(where=source.where()), expected=_("a table with a header"),
                        found=_("no filled cell"), next=_("Choose the file that holds the inquiries."))
    wide = [row for row in first if sum(bool(cell.strip()) for cell in row.cells) >= 2]
    header = wide[0] if wide else first[0]
    for cell in header.cells:
        _check_cell(cell, source, header.number)
    columns = _names(header.cells)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(
            "duplicate_headers", _("Two columns of {where} have the same name.").format(where=source.where(header.number)),
            expected=_("a different name for each column"), found=", ".join(repeated),
            next=_("Rename one of them in the header row and save again."))
    if not any(row.number > header.number for row in first):
        raise DataError("header_only", _("{where} has a header but no rows.").format(where=source.where()),
                        expected=_("at least one message below the header"), found=_("0 rows"),
                        next=_("Check that the right file or sheet was chosen."))
    return Table(source, tuple(columns), header.number, read)


def _names(cells: Sequence[str]) -> list[str]:
    """Header cells as column names; an empty one is named after its letter in Excel, empty ones at the end dropped."""
    last = max(i for i, cell in enumerate(cells) if cell.strip())
    return [cell.strip() or _("Column {letter}").format(letter=letter(i)) for i, cell in enumerate(cells[:last + 1])]


def letter(index: int) -> str:
    """The letter of the column at `index` (from 0) in Excel."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
