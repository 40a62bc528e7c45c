"""Personal data: found as well as rules can, masked before anything is learnt, and My Number refused.

Rules miss some names and addresses; they are a net under the person who exports the file, not a replacement.
"""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from machikoba.errors import DataError
from machikoba.language import _

PLACEHOLDERS = {"mail": "〔メール〕", "phone": "〔電話〕", "card": "〔カード〕", "postal_code": "〔郵便番号〕",
                "bank_account": "〔口座〕", "twelve_digits": "〔番号〕", "name": "〔氏名〕", "address": "〔住所〕",
                "line_id": "〔LINE ID〕"}
NEAR = 20  # characters between a My Number word and a 12-digit number

_HYPHEN = r"[-‐-―−ー－ｰ]"
_SEPARATOR = rf"(?:{_HYPHEN}|[\s()（）])"
_KANJI = r"[\u4e00-\u9fff々]"
# Words that stand before 様 and さま without being a name, and characters that names do not begin with.
_NOT_NAMES = (
    "お客", "旦那", "主人", "女将", "支配人", "担当", "責任者", "宿泊者", "利用者", "会員", "両親", "夫婦", "家族",
    "業者", "会社", "団体", "先方", "貴社", "御社", "板前", "仲居", "運転手", "料理長", "店長", "社長", "部長",
    "課長", "先生", "大人", "男性", "女性", "沢山", "相手", "一同", "親戚", "子供", "兄弟", "姉妹", "祖父", "祖母",
    "奥", "婦人", "王",
)
_NOT_FIRST = "皆何各全同御貴両諸当"
_PATTERNS = [
    ("mail", re.compile(r"[A-Za-z0-9._%+-]+[@＠][A-Za-z0-9.-]+\.[A-Za-z]{2,}")),
    ("line_id", re.compile(r"(?:LINE|ライン)\s*ID\s*[:：は]?\s*([A-Za-z0-9._-]{4,20})", re.I)),
    ("bank_account", re.compile(r"(?:普通|当座|口座番号)(?:預金)?(?:口座)?(?:番号)?\s*[:：は]?\s*(\d{7})(?!\d)")),
    ("card", re.compile(rf"(?<!\d)\d{{4}}{_SEPARATOR}?\d{{4}}{_SEPARATOR}?\d{{4}}{_SEPARATOR}?\d{{1,4}}(?!\d)|"
                        rf"(?<!\d)\d{{4}}{_SEPARATOR}?\d{{6}}{_SEPARATOR}?\d{{4,5}}(?!\d)")),
    ("phone", re.compile(rf"(?<![\d.])(?:\+81{_SEPARATOR}?\d{{1,4}}|\(?0\d{{1,4}}\)?){_SEPARATOR}?\d{{1,4}}{_SEPARATOR}?"
                         rf"\d{{3,4}}(?!\d)")),
    ("twelve_digits", re.compile(rf"(?<!\d)\d{{4}}{_SEPARATOR}?\d{{4}}{_SEPARATOR}?\d{{4}}(?!\d)")),
    ("postal_code", re.compile(rf"(?:〒\s*|郵便番号\s*[:：は]?\s*)(\d{{3}}{_HYPHEN}?\d{{4}})(?!\d)|"
                               rf"(?<!\d)(\d{{3}}{_HYPHEN}\d{{4}})(?=\s*(?:北海道|東京都|(?:京都|大阪)府|{_KANJI}{{2,3}}県))")),
    ("address", re.compile(rf"(?:北海道|東京都|(?:京都|大阪)府|{_KANJI}{{2,3}}県)[^\s、。,\d]{{1,12}}?[市区町村郡]"
                           rf"[^\s、。,]{{0,20}}?\d{{1,4}}(?:丁目|番地?|号|{_HYPHEN}\d{{1,4}}){{1,3}}(?:\d{{1,4}}(?:番地?|号)?|{_HYPHEN}\d{{1,4}})*")),
    ("name", re.compile(rf"(?:名前は|氏名\s*[:：は]|私は|予約者\s*[:：は]|代表者\s*[:：は])\s*({_KANJI}{{1,3}}[\s　]?"
                        rf"(?:{_KANJI}{{1,3}}|[\u30a0-\u30ff]{{2,8}}|[\u3040-\u309f]{{2,4}})?)(?=です|と申|と言|といい|、|。|$|\n|様)")),
    ("name", re.compile(rf"({_KANJI}{{1,3}}[\s　]?{_KANJI}{{0,3}})(?=と申します|と申し|と申す)")),
    ("name", re.compile(rf"(?<!{_KANJI})({_KANJI}{{2,4}})(?=様|さま)")),
    ("name", re.compile(r"(?:[Mm]y name is|I am|I'm)\s+([A-Z][a-z]+(?:\s[A-Z][a-z]+)?)(?=[\s,.!])")),
]
_DIGIT = re.compile(r"\d")
_HINTS = re.compile(r"[@＠]|LINE|ライン|様|さま|申し|申す|名前|氏名|予約者|代表者|私は|[Nn]ame is|I am|I'm", re.I)
_MY_NUMBER = re.compile(r"マイナンバー|個人番号|my\s*number", re.I)
_TWELVE = re.compile(rf"(?<!\d)\d{{4}}{_SEPARATOR}?\d{{4}}{_SEPARATOR}?\d{{4}}(?!\d)")


@dataclass(frozen=True)
class Finding:
    """A piece of personal data in a text: its kind and where it stands."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class MaskedNumber:
    """A lone 12-digit number that passes the check of My Number; one in ten does, so it is masked and listed."""

    row: int
    column: str


def find(text: str) -> list[Finding]:
    """Personal data in `text`, in order, without overlaps."""
    plain = _narrow(text)
    has_digit = bool(_DIGIT.search(plain))
    if not has_digit and not _HINTS.search(plain):
        return []
    found: list[Finding] = []
    for kind, pattern in _PATTERNS:
        if not has_digit and kind in ("bank_account", "card", "phone", "twelve_digits", "postal_code", "address"):
            continue
        for match in pattern.finditer(plain):
            group = next((i for i in range(1, (match.lastindex or 0) + 1) if match.group(i)), 0)
            start, end = match.span(group)
            if _is(kind, match.group(group)) and not any(f.start < end and start < f.end for f in found):
                found.append(Finding(kind, start, end))
    return sorted(found, key=lambda f: f.start)


def mask(text: str) -> tuple[str, list[Finding]]:
    """`text` with each piece of personal data replaced by its placeholder, and what was found."""
    found = find(text)
    masked = text
    for finding in reversed(found):
        masked = masked[:finding.start] + PLACEHOLDERS[finding.kind] + masked[finding.end:]
    return masked, found


def _narrow(text: str) -> str:
    """Full-width letters and digits made narrow, one for one, so that positions stay."""
    return "".join(unicodedata.normalize("NFKC", c) if "！" <= c <= "～" else c for c in text) if any(
        "！" <= c <= "～" for c in text) else text


def _is(kind: str, found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    if kind == "card":
        return 13 <= len(digits) <= 16 and _luhn(digits)
    if kind == "phone":
        if found.startswith("+81"):
            return 10 <= len(digits) <= 13
        return len(digits) in (10, 11) and (not digits.startswith("00"))
    if kind == "twelve_digits":
        return my_number_valid(digits)
    if kind == "name":
        return found[0] not in _NOT_FIRST and not any(word in found for word in _NOT_NAMES)
    return True


def _luhn(digits: str) -> bool:
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def my_number_valid(digits: str) -> bool:
    """The check digit of a 12-digit individual number (総務省令第85号, 平成26年)."""
    if len(digits) != 12 or not digits.isdigit():
        return False
    total = sum(int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(digits[:11]), start=1))
    rest = total % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def refuse_my_number(columns: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]], where: str) -> list[MaskedNumber]:
    """Lone numbers that look like My Number; raises DataError(my_number) where a column or a text clearly holds them.

    rows: (row number, cells). Nothing may be stored before this has returned.
    """
    for name in columns:
        if _MY_NUMBER.search(name):
            raise _refused(where, name, None)
    lone: list[MaskedNumber] = []
    filled, passing = [0] * len(columns), [0] * len(columns)
    for number, cells in rows:
        for place, cell in enumerate(cells):
            if not cell:
                continue
            filled[place] += 1
            if len(cell) < 12 or not _DIGIT.search(cell):
                continue
            plain = _narrow(cell)
            numbers = list(_TWELVE.finditer(plain))
            if not numbers:
                continue
            words = list(_MY_NUMBER.finditer(plain))
            if any(min(abs(w.end() - m.start()), abs(m.end() - w.start())) <= NEAR for w in words for m in numbers):
                raise _refused(where, columns[place], number)
            if any(my_number_valid(re.sub(r"\D", "", m.group())) for m in numbers):
                passing[place] += len(plain.strip()) <= 16
                lone.append(MaskedNumber(number, columns[place]))
    for place, name in enumerate(columns):
        if passing[place] >= 5 and passing[place] > filled[place] / 2:
            raise _refused(where, name, None)
    return lone


def _refused(where: str, column: str, row: int | None) -> DataError:
    place = _("column {column}").format(column=column)
    if row is not None:
        place = _("row {row}, column {column}").format(row=row, column=column)
    return DataError(
        "my_number", _("{where} holds My Number (個人番号). Nothing was stored.").format(where=where),
        expected=_("a file without it: the law (番号法) allows it for tax, social security and disaster relief only"),
        found=place, next=_("Delete it from the file, and save and try again."))
