"""Excel and LibreOffice workbooks, through python-calamine."""
from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook, PasswordError

from machikoba.errors import DataError
from machikoba.language import _
from machikoba.records.table import Row, Source, Table, letter, with_header

MAX_UNPACKED_BYTES = 512 << 20
MAX_RATIO = 200  # a workbook of real text packs to about a tenth; one that unpacks 200-fold is made to harm
HARMLESS_BYTES = 64 << 20
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # .xls, and the container of a password-protected .xlsx


def open_workbook(path: Path, sheet: str | None) -> Table:
    """The table on `sheet`, or on the first sheet that holds anything. Raises DataError."""
    book = _book(path)
    names = book.sheet_names
    if sheet is not None and sheet not in names:
        raise DataError("sheet_missing", _("{file} has no sheet {sheet}.").format(file=path.name, sheet=sheet),
                        expected=_("one of: {names}").format(names=", ".join(names)), found=sheet,
                        next=_("Name one of these with --sheet."))
    chosen, reason = sheet, ""
    if chosen is None:
        chosen = next((name for name in names if _filled(book, name)), names[0] if names else "")
        if len(names) > 1:
            reason = _("sheet {sheet}: the first of {n} that holds anything").format(sheet=chosen, n=len(names))
    source = Source(path, chosen, None, reason)
    data = book.get_sheet_by_name(chosen)
    first_row = data.start[0] if data.start else 0

    def read() -> Iterator[Row]:
        for offset, cells in enumerate(data.to_python(skip_empty_area=False)[first_row:]):
            yield Row(first_row + offset + 1, tuple(_text(cell) for cell in cells))

    table = with_header(source, read)
    for (top, left), (bottom, right) in data.merged_cell_ranges or []:
        if bottom + 1 >= table.header_row:
            raise DataError(
                "merged_cells", _("{where} has merged cells.").format(where=source.where(max(top + 1, table.header_row))),
                expected=_("one message per row, each cell on its own"),
                found=_("merged: rows {top} to {bottom}, columns {left} to {right}").format(
                    top=top + 1, bottom=bottom + 1, left=letter(left), right=letter(right)),
                next=_("In Excel choose \"Unmerge Cells\", fill the gaps, save, and try again."))
    return table


def cells(path: Path) -> Iterator[str]:
    """Every filled cell of every sheet. Raises DataError."""
    book = _book(path)
    for name in book.sheet_names:
        for row in book.get_sheet_by_name(name).to_python():
            yield from filter(None, map(_text, row))


def _book(path: Path) -> CalamineWorkbook:
    _refuse_bomb(path)
    try:
        return CalamineWorkbook.from_filelike(io.BytesIO(path.read_bytes()))  # the kind by content, not by name
    except PasswordError as error:
        raise _protected(path) from error
    except (CalamineError, OSError, ValueError) as error:
        if _encrypted(path):
            raise _protected(path) from error
        raise DataError(
            "workbook_broken", _("{file} cannot be opened as a workbook.").format(file=path.name),
            expected=_("an .xlsx, .xls or .ods file"), found=str(error)[:200],
            next=_("Open it in Excel, save it again as .xlsx, and try that file.")) from error


def _filled(book: CalamineWorkbook, name: str) -> bool:
    return book.get_sheet_by_name(name).end is not None


def _text(cell: object) -> str:
    """A cell as a person reads it: whole numbers without .0, dates as ISO, times without empty midnight."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool) or cell is None:
        return "" if cell is None else str(cell).upper()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime.datetime):
        return cell.date().isoformat() if cell.time() == datetime.time() else cell.isoformat(" ", "minutes")
    return str(cell)


def _refuse_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return  # calamine says what is wrong with it
    unpacked, packed = sum(m.file_size for m in members), max(1, sum(m.compress_size for m in members))
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > HARMLESS_BYTES and unpacked / packed > MAX_RATIO):
        raise DataError(
            "file_explodes", _("{file} would unpack to far more than it should.").format(file=path.name),
            expected=_("at most {n} MiB").format(n=MAX_UNPACKED_BYTES >> 20),
            found=_("{n} MiB in a file of {size} MiB").format(n=unpacked >> 20, size=path.stat().st_size >> 20),
            next=_("Do not open it if you do not know where it comes from; else split it into smaller files."))


def _encrypted(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(8) != OLE_MAGIC:
            return False
        file.seek(0)
        return "EncryptedPackage".encode("utf-16-le") in file.read()


def _protected(path: Path) -> DataError:
    return DataError("password_protected", _("{file} is protected by a password.").format(file=path.name),
                     expected=_("a file that opens without one"), found=_("an encrypted workbook"),
                     next=_("Open it in Excel, remove the password under \"Protect Workbook\", and save a copy."))
