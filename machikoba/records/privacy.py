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
_GAP = rf"(?:[ \u3000]?{_HYPHEN}[ \u3000]?|[\s()（）]{{1,2}})"
_KANJI = r"[\u4e00-\u9fff々]"
_FULL_NAME = (rf"{_KANJI}{{1,3}}[ \u3000]?(?:{_KANJI}{{1,3}}|[\u30a1-\u30ff]{{2,8}}|(?<=[ \u3000])[\u3041-\u309f]{{2,4}})??|"
              r"[\u30a1-\u30ff・]{2,12}")
_PREFECTURE = rf"(?:北海道|東京都|(?:京都|大阪)府|{_KANJI}{{2,3}}県)"
_PLACE = r"(?:(?![にをはへもで])[\u4e00-\u9fff々\u3041-\u309fァ-ヶー])"  # particles end the name of a place
_MORE = rf"(?:の?\d{{1,4}}(?:番地?|号)?|{_HYPHEN}\d{{1,4}})*"
# Words that stand where a name could, and what such words end in.
_NOT_NAMES = re.compile(
    r"客|旦那|主人|女将|支配人|担当|責任|利用|会員|両親|夫婦|家族|会社|団体|先方|相手|貴社|御社|板前|仲居|運転手|"
    r"料理長|店長|社長|部長|課長|先生|男性|女性|沢山|一同|一行|親戚|親御|子供|兄弟|姉妹|祖父|祖母|婦人|幹事|新郎|新婦|"
    r"保護|学生|生徒|代理|多種|馳走|若奥|得意|大仏|如来|菩薩|観音|明神|和尚|僧侶|住職|雲水|王子|他人|店舗|不明|未定|"
    r"不要|必要|匿名|秘密|以下|以上|上記|下記|部署|変更|予約|確認|連絡|地域|任意|旧姓|仮名|外国|同[上じ]|"
    r"^(?:次|大人|本人|友人|知人|夫人|老人|個人|法人|本名|日本)|[一二三四五六七八九十百数\d][名人組]|"
    r"[者員店仕模同側師課係署皆無]$|(?<![緒土])方$|(?<!野)寺$|(?<![本喜])多$")
_NOT_FIRST = "皆何各全同御貴両諸当"
_OFFICE_WORD = "予約|変更|取消|担当|宿泊|連絡|返信|件名|代表|氏名|名前|至急|確認|注文|依頼|質問|追加|本日|明日|昨日|先日|以前"
_PATTERNS = [
    ("mail", re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+[@＠][A-Za-z0-9.-]+\.[A-Za-z]{2,}")),
    ("line_id", re.compile(r"(?:LINE|ライン)\s*ID\s*[:：は]?\s*([A-Za-z0-9._-]{4,20})", re.I)),
    ("bank_account", re.compile(r"(?:普通|当座|口座番号)(?:預金)?(?:口座)?(?:の?番号)?[\s:：は(（]*(\d{7})(?!\d)")),
    ("card", re.compile(rf"(?<!\d)\d{{4}}{_GAP}?\d{{4}}{_GAP}?\d{{4}}{_GAP}?\d{{1,4}}(?!\d)|"
                        rf"(?<!\d)\d{{4}}{_GAP}?\d{{6}}{_GAP}?\d{{4,5}}(?!\d)")),
    ("phone", re.compile(rf"(?<![\d.])(?<!\d{_HYPHEN})(?:\+81{_GAP}?(?:0{_GAP}?)?\d{{1,4}}|\(?0\d{{1,4}}\)?){_GAP}?"
                         rf"\d{{1,4}}{_GAP}?\d{{3,4}}(?!\d)")),
    ("twelve_digits", re.compile(rf"(?<!\d)\d{{4}}{_GAP}?\d{{4}}{_GAP}?\d{{4}}(?!\d)")),
    ("postal_code", re.compile(rf"(?:〒\s*|郵便(?:番号)?\s*[:：は]?\s*)(\d{{3}}{_HYPHEN}?\d{{4}})(?!\d)|"
                               rf"住所[^\d\n]{{0,6}}(\d{{3}}{_HYPHEN}\d{{4}})(?!\d|{_HYPHEN})|"
                               rf"(?<!\d)(\d{{3}}{_HYPHEN}\d{{4}})(?=\s*{_PREFECTURE})")),
    ("address", re.compile(rf"{_PREFECTURE}{_PLACE}{{1,12}}?[市区町村郡]{_PLACE}{{0,20}}?"
                           rf"(?:\d{{1,4}}(?:丁目|番地?|号|{_HYPHEN}\d{{1,4}}){{1,3}}{_MORE}|"
                           rf"(?<=町)\d{{1,4}}(?![\d年月日時分人名泊円個つ,，]))")),
    # Without a prefecture, only what can be nothing but an address: "市内1-2日" is not.
    ("address", re.compile(rf"{_KANJI}{{1,5}}[市区町村郡]{_KANJI}{_PLACE}{{0,15}}?(?:\d{{1,3}}丁目|\d{{1,4}}番地|"
                           rf"\d{{1,3}}番\d{{1,3}}号|\d{{1,4}}{_HYPHEN}\d{{1,4}}{_HYPHEN}\d{{1,4}}){_MORE}")),
    ("name", re.compile(rf"(?:名前は|(?:氏名|予約者|代表者|担当者)(?:名)?\s*[:：は])\s*({_FULL_NAME})"
                        rf"(?=です|でござ|と申|と言|といい|、|。|$|\n|様|さん)")),
    ("name", re.compile(rf"担当(?:者)?の({_FULL_NAME})(?=です|でござ|と申|様|さん)")),
    ("name", re.compile(rf"((?<!{_KANJI}){_FULL_NAME}|{_KANJI}{{2,6}})(?=と申します(?![かと])|と申しまして|と申す者)")),
    ("name", re.compile(r"(?:^|[。、！!\s]|私は)([\u3041-\u309f]{2,8})(?=と申します(?![かと]))", re.M)),
    ("name", re.compile(rf"(?:^|[。、！!\s]|私は)({_KANJI}{{2,6}})(?=(?:といいます|と言います)(?![かと]))", re.M)),
    ("name", re.compile(rf"(?<!{_KANJI})(?<![おごオゴ])((?:(?!{_OFFICE_WORD}){_KANJI}{{1,3}}[ \u3000])?{_KANJI}{{2,4}})"
                        rf"(?=(?:様|さま)(?![子々式相態変似ざ]))")),
    ("name", re.compile(r"[Mm]y name is\s+([A-Z][a-z]+(?:\s[A-Z][a-z]+)?)\b")),
    ("name", re.compile(r"\b(?:I am|I'm)\s+([A-Z][a-z]+\s[A-Z][a-z]+)\b")),  # one word could be "I am Japanese"
]
_WITH_DIGITS = {"bank_account", "card", "phone", "twelve_digits", "postal_code", "address"}
_DIGIT = re.compile(r"\d")
_HINTS = re.compile(r"[@＠]|LINE|ライン|様|さま|申し|申す|といい|と言い|名前|氏名|予約者|代表者|担当|name is|I am|I'm", re.I)
_ADDRESS_HINT = re.compile(rf"\d(?:丁目|番|号|{_HYPHEN}\d)|町\d")
_MY_NUMBER = re.compile(r"マイ\s*ナンバ|個人\s*番号|my[\s_-]*number", re.I)
_TWELVE = re.compile(rf"(?<!\d)\d{{4}}{_GAP}?\d{{4}}{_GAP}?\d{{4}}(?!\d)")


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
        if (kind in _WITH_DIGITS and not has_digit) or (kind == "address" and not _ADDRESS_HINT.search(plain)):
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


def _plain(text: str) -> str:
    """NFKC, in which ﾏｲﾅﾝﾊﾞｰ and ＭＹ　ＮＵＭＢＥＲ read as they are meant; positions may move."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _is(kind: str, found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    if kind == "card":
        return 13 <= len(digits) <= 16 and _luhn(digits)
    if kind == "phone":
        if found.startswith("+81"):
            return len(digits[2:].removeprefix("0")) in (9, 10)
        return len(digits) in (10, 11) and (not digits.startswith("00"))
    if kind == "twelve_digits":
        return my_number_valid(digits)
    if kind == "name":
        return found[0] not in _NOT_FIRST and not _NOT_NAMES.search(found)
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
    # A file without headings may have a number where the heading should be; no message repeats it.
    columns = [_TWELVE.sub(PLACEHOLDERS["twelve_digits"], _plain(name)) if _TWELVE.search(_plain(name)) else name
               for name in columns]
    for name in columns:
        if _MY_NUMBER.search(_plain(name)):
            raise _refused(where, name, None)
    lone: list[MaskedNumber] = []
    filled, passing = [0] * len(columns), [0] * len(columns)
    for number, cells in rows:
        for place, cell in enumerate(cells):
            if not cell.strip():
                continue
            filled[place] += 1
            if len(cell) < 12 or not _DIGIT.search(cell):
                continue
            plain = _plain(cell)
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
        expected=_("a file without it: the law (番号法) allows it only for what it names, such as tax and social security"),
        found=place, next=_("Delete it from the file, and save and try again."))
