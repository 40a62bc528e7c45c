"""CSV, TSV and JSON lines, in the encodings that Japanese offices use."""
from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from machikoba.errors import DataError
from machikoba.language import _
from machikoba.records.table import MAX_TEXT_CHARACTERS, Row, Source, Table, with_header

SAMPLE_BYTES = 1 << 18
MAX_FILE_BYTES = 4 << 30
_NAMES = {"utf-8-sig": "UTF-8 (BOM)", "utf-8": "UTF-8", "cp932": "CP932 (Shift_JIS)", "euc_jp": "EUC-JP",
          "utf-16": "UTF-16"}
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff、。「」ー々\u3000！-～]")
_ODD = re.compile(r"[\uff61-\uff9f\u0080-\u00ff\ue000-\uf8ff]")  # half-width kana in a row is what EUC-JP read as CP932 gives
_UNASSIGNED = re.compile("[\x80\xa0\uf8f0-\uf8f3]")  # what CP932 makes of bytes that no text has
csv.field_size_limit(256 << 20)  # our own, clearer limit of a cell comes first


def open_text(path: Path) -> Table:
    """The table in a .csv, .tsv, .txt or .jsonl file. Raises DataError."""
    encoding, reason = detect_encoding(path)
    source = Source(path, None, _NAMES[encoding], reason)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return _json_lines(source, encoding)
    delimiter = _delimiter(path, encoding)

    def read() -> Iterator[Row]:
        with path.open(encoding=encoding, newline="") as file:
            number = 0  # as a spreadsheet counts: a text with line breaks is one row
            try:
                for number, cells in enumerate(csv.reader(file, delimiter=delimiter, strict=False), start=1):
                    yield Row(number, tuple(cells))
            except csv.Error as error:
                raise DataError(
                    "csv_broken", _("{where} cannot be read as a table.").format(where=source.where(number + 1)),
                    expected=_("cells separated by commas or tabs"), found=str(error),
                    next=_("Open the file in Excel and save it again as CSV or .xlsx.")) from error

    return with_header(source, read)


def lines(path: Path) -> Iterator[str]:
    """Every line, also of a file that is damaged: then in each encoding that it could be of."""
    try:
        codecs_ = [detect_encoding(path)[0]]
    except DataError:
        codecs_ = ["utf-8", "cp932", "euc_jp"]
    for codec in codecs_:
        for line in path.read_bytes().decode(codec, "ignore").splitlines():
            yield line
            if "\\u" in line:  # as JSON writes what is not ASCII
                with contextlib.suppress(ValueError, RecursionError):
                    yield json.dumps(json.loads(line), ensure_ascii=False)


def detect_encoding(path: Path) -> tuple[str, str]:
    """The codec of a text file and why. Every byte is decoded strictly; ties go to the most plausible Japanese.

    Raises DataError(encoding_mixed) naming the line up to which the best of them fits.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(codecs.BOM_UTF8):
        candidates = ["utf-8-sig"]
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        candidates = ["utf-16"]
    else:
        candidates = ["utf-8", "cp932", "euc_jp"]
    fitting = [codec for codec in candidates if _decodes(path, codec)]
    if not fitting:
        row = max(_first_bad_line(path, codec) for codec in candidates)  # of the encoding that goes furthest
        raise DataError(
            "encoding_mixed", _("{where} mixes character encodings.").format(where=Source(path).where(row)),
            expected=_("one encoding throughout: UTF-8, CP932 (Shift_JIS), UTF-16 or EUC-JP"),
            found=_("bytes that fit none of them"),
            next=_("Open the file in Excel, correct the garbled row and save it as .xlsx or as \"CSV UTF-8\"."))
    if fitting[0] in ("utf-8", "utf-8-sig", "utf-16"):
        return fitting[0], _("encoding {name}: every byte fits").format(name=_NAMES[fitting[0]])
    best = max(fitting, key=lambda codec: (_plausible(path, codec), codec == "cp932"))
    return best, _("encoding {name}: its text reads most like Japanese").format(name=_NAMES[best])


def _decodes(path: Path, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)("strict")
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                if _UNASSIGNED.search(decoder.decode(block)):
                    return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _plausible(path: Path, codec: str) -> float:
    with path.open("rb") as file:
        text = codecs.getincrementaldecoder(codec)("strict").decode(file.read(SAMPLE_BYTES))
    wide = [c for c in text if ord(c) > 127]
    return (len(_JAPANESE.findall(text)) - 3 * len(_ODD.findall(text))) / max(1, len(wide))


def _first_bad_line(path: Path, codec: str) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if _UNASSIGNED.search(line.decode(codec)):
                    return number
            except UnicodeDecodeError:
                return number
    return 1


def _delimiter(path: Path, encoding: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding=encoding, newline="") as file:
        start = file.read(MAX_TEXT_CHARACTERS)
    counts = {}
    for delimiter in (",", "\t", ";"):
        try:
            counts[delimiter] = len(next(csv.reader(io.StringIO(start), delimiter=delimiter), []))
        except csv.Error:
            counts[delimiter] = 0
    return max(counts, key=lambda delimiter: counts[delimiter])


def _json_lines(source: Source, encoding: str) -> Table:
    def objects() -> Iterator[tuple[int, dict]]:
        with source.path.open(encoding=encoding) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise ValueError(type(value).__name__)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        "json_broken", _("{where} is not a JSON object.").format(where=source.where(number)),
                        expected='{"text": "…", "label": "…"}', found=str(error)[:200],
                        next=_("Correct that line: one object per line.")) from error
                yield number, value

    columns: dict[str, None] = {}
    for _number, value in objects():
        columns.update(dict.fromkeys(value))
    if not columns:
        raise DataError("file_empty", _("{where} is empty.").format(where=source.where()), expected=_("a table with a header"),
                        found=_("no filled cell"), next=_("Choose the file that holds the inquiries."))

    def read() -> Iterator[Row]:
        for number, value in objects():
            yield Row(number, tuple(_text(value.get(name)) for name in columns))

    return Table(source, tuple(columns), 0, read)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
