"""Writes the sample town's records: an Excel file and its CP932 twin, the same bytes each time.

`messages_*.tsv` hold whole messages, `sentences.tsv` the wishes of kinds with too few of them; all are written by hand
for this repository and invented. A wish becomes one to four messages: as mail, web form, phone memo or LINE, with invented
names and dates, greetings, second wishes, typing errors, emoji and mixed widths.
"""
from __future__ import annotations

import csv
import random
import unicodedata
import zipfile
from datetime import date, datetime, timedelta
from pathlib import Path

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font

HERE = Path(__file__).parent
FIRST, DAYS = date(2024, 4, 1), 730
HEADERS = ("受付番号", "受付日", "受付方法", "問い合わせ内容", "分類", "担当")
STAMP = (2026, 4, 1, 0, 0, 0)
# How many messages of each kind, and the share of them in the second year: the town changes.
KINDS = {
    "空室・予約": (330, 0.50), "温泉・貸切風呂": (290, 0.58), "予約の変更・取消": (280, 0.46), "部屋・設備": (235, 0.52),
    "送迎・アクセス": (230, 0.48), "料金・支払い": (195, 0.56), "日帰り入浴": (190, 0.60), "子ども・バリアフリー": (180, 0.54),
    "食事・アレルギー": (160, 0.55), "売店・通販": (150, 0.55), "忘れ物": (150, 0.47), "苦情・ご意見": (130, 0.62),
    "その他": (120, 0.55)}
CHANNELS = {"p": ("メール", "フォーム"), "c": ("LINE",), "m": ("電話メモ",), "e": ("メール", "フォーム"), "z": ("フォーム",)}
NAMES = ("霧島", "江川", "汐見", "三枝", "早瀬", "柚木", "久我", "真壁", "瀬能", "若林", "小日向", "遠野", "六角", "志村", "白石", "葛西")
STAFF = ("水谷", "雨宮", "桐原", "", "浜野", "")
OPENINGS = ("お世話になります。", "はじめてご連絡いたします。", "こんにちは。", "突然のご連絡失礼いたします。", "いつもありがとうございます。",
            "お忙しいところ恐れ入ります。", "先日はお電話をありがとうございました。", "ホームページを拝見しました。")
CLOSINGS = ("よろしくお願いいたします。", "ご返信をお待ちしております。", "お手数ですが、よろしくお願いします。", "以上、ご確認ください。",
            "急ぎませんので、お手すきの折にお願いします。", "どうぞよろしくお願い申し上げます。")
DETAILS = ("夫婦二人の旅です。", "母の古希の祝いを兼ねています。", "以前一度だけ伺ったことがあります。", "初めてそちらの地方へ参ります。",
           "友人に薦められました。", "学生時代の仲間と集まります。", "仕事のついでに寄るつもりです。", "足の弱い家族が一緒です。",
           "当日は遅めに着くかもしれません。", "テレビで町の様子を見ました。")
EMOJI = ("😊", "🙏", "✨", "！！", "（笑）", "♪", "💦", "")
LINE_STARTS = ("すみません、", "こんばんは！", "あの、", "質問です。", "おはようございます。", "ちょっと聞きたいんですけど、", "")
LINE_ENDS = ("教えてください", "お願いします！", "わかりますか", "急ぎです", "いつでもいいです")
HOURS = ("9時", "10時", "11時半", "13時", "14時", "15時40分", "16時", "17時", "18時過ぎ")
TYPOS = (("ください", "くだあい"), ("できますか", "出来まうか"), ("予約", "予訳"), ("お願い", "お願"), ("ありますか", "あるますか"),
         ("いたします", "致ます"), ("教えて", "おしえて"), ("部屋", "へや"), ("時間", "時感"), ("確認", "確任"))


def main() -> None:
    draw = random.Random(2024)
    rows = sorted(_rows(draw), key=lambda row: (row[0], row[2]))
    table = [(f"R{i:04d}", day.isoformat(), channel, text, kind, draw.choice(STAFF))
             for i, (day, channel, text, kind) in enumerate(rows, start=1)]
    _write_csv(table)
    _write_xlsx(table)
    print(f"{len(table)} messages, {len(KINDS) - 1} kinds and その他")


def _rows(draw: random.Random) -> list[tuple[date, str, str, str]]:
    wishes = _sentences()
    whole = [line.split("\t") for path in sorted(HERE.glob("messages_*.tsv"))
             for line in path.read_text(encoding="utf-8").splitlines() if line]
    rows, seen = [], set()
    for kind, (wanted, late_share) in KINDS.items():
        written = [(channel, period, text.replace("\\n", "\n")) for k, channel, period, text in whole if k == kind]
        made = [(channel, _day(draw, period, late_share), text) for channel, period, text in written[:wanted]]
        seen.update(unicodedata.normalize("NFKC", text) for _channel, _day_, text in made)
        order: list[tuple[str, str, str]] = []
        while len(made) < wanted:
            if not order:
                order = draw.sample(wishes[kind], len(wishes[kind]))
            style, period, wish = order.pop()
            day = _day(draw, period, late_share)
            if style == "c" and draw.random() > 0.5 + 0.5 * (day - FIRST).days / DAYS:
                continue  # LINE is used more and more
            channel = draw.choice(CHANNELS[style])
            text = _message(draw, style, channel, _filled(draw, wish, day), wishes, kind)
            if unicodedata.normalize("NFKC", text) not in seen:
                seen.add(unicodedata.normalize("NFKC", text))
                made.append((channel, day, text))
        rows += [(day, channel, text, kind) for channel, day, text in made]
    return rows


def _sentences() -> dict[str, list[tuple[str, str, str]]]:
    """Wishes by kind: (style, period, text)."""
    wishes: dict[str, list[tuple[str, str, str]]] = {}
    kind = ""
    for line in (HERE / "sentences.tsv").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kind = line[2:]
            wishes[kind] = []
        elif line:
            style, period, text = line.split("\t")
            wishes[kind].append((style, period, text))
    return wishes


def _day(draw: random.Random, period: str, late_share: float) -> date:
    late = period == "late" or (period == "any" and draw.random() < late_share)
    while True:
        day = FIRST + timedelta(days=draw.randrange(DAYS // 2) + (DAYS // 2 if late else 0))
        # Golden Week, summer, autumn leaves and New Year bring more messages.
        if draw.random() < {5: 0.9, 8: 1.0, 10: 0.9, 11: 0.9, 12: 0.8, 1: 0.7, 3: 0.7}.get(day.month, 0.55):
            return day


def _filled(draw: random.Random, wish: str, day: date) -> str:
    stay = day + timedelta(days=draw.randrange(3, 60))
    shown = draw.choice((f"{stay.month}月{stay.day}日", f"{stay.month}/{stay.day}", f"{stay.month}月の{stay.day}日",
                         f"来月の{stay.day}日", f"{stay.day}日"))
    english = stay.strftime("%B ") + str(stay.day)
    is_english = wish.isascii()
    return wish.format(d=english if is_english else shown, n=draw.choice((2, 3, 4, 5, 6, 8)), name=draw.choice(NAMES),
                       ename="Alex Example", room=draw.choice((101, 203, 205, 208, 306, 310)),
                       t=f"{draw.randrange(10, 19)}時" if not is_english else f"{draw.randrange(1, 6)} pm")


def _message(draw: random.Random, style: str, channel: str, wish: str, wishes: dict, kind: str) -> str:
    if style == "m":
        return f"{draw.choice(HOURS)} {wish}" + draw.choice(("", "", f" 受{draw.choice(STAFF[:3])}", " メモ済"))
    if style == "c":
        start = draw.choice(LINE_STARTS) if draw.random() < 0.5 else ""
        end = draw.choice(LINE_ENDS) if draw.random() < 0.25 else ""
        return _worn(draw, f"{start}{wish}{end}{draw.choice(EMOJI)}")
    if style in "ez":
        return wish
    parts = [wish]
    if kind not in ("その他", "苦情・ご意見") and draw.random() < 0.10:
        other = draw.choice([k for k in wishes if k not in (kind, "その他")])
        second = [w for s, p, w in wishes[other] if s == "p" and p == "any" and "{" not in w]
        parts.append("それから、" + draw.choice(second))
    if draw.random() < 0.45:
        parts.insert(draw.randrange(2), draw.choice(DETAILS))
    if channel == "メール":
        parts.insert(0, draw.choice(OPENINGS))
        if draw.random() < 0.4:
            parts.insert(1, f"{draw.choice(NAMES)}と申します。")
        parts.append(draw.choice(CLOSINGS))
        if draw.random() < 0.25:
            parts.append(f"\n{draw.choice(NAMES)}\n090-0000-{draw.randrange(1000, 10000)}")
        elif draw.random() < 0.15:
            parts.append(f"\nmail{draw.randrange(100)}@example.jp")
        return _worn(draw, "\n".join(parts) if draw.random() < 0.5 else "".join(parts))
    if draw.random() < 0.35:
        parts.append(draw.choice(CLOSINGS))
    return _worn(draw, "".join(parts))


def _worn(draw: random.Random, text: str) -> str:
    """Typing errors and mixed widths, as people leave them."""
    if draw.random() < 0.12:
        found = [(right, wrong) for right, wrong in TYPOS if right in text]
        if found:
            text = text.replace(*draw.choice(found), 1)
    if draw.random() < 0.15:
        text = text.translate({ord(c): chr(ord(c) + 0xFEE0) for c in "0123456789"})
    if draw.random() < 0.06:
        text = text.replace("！", "!").replace("、", ",").replace("。", ".")
    return text


def _write_csv(table: list[tuple]) -> None:
    with (HERE / "問い合わせ_cp932.csv").open("w", encoding="cp932", errors="replace", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(HEADERS)
        writer.writerows(table)


def _write_xlsx(table: list[tuple]) -> None:
    book = Workbook()
    book.properties.created = book.properties.modified = datetime(*STAMP[:3])
    book.properties.creator = "machikoba sample town"
    sheet = book.active
    sheet.title = "問い合わせ"
    sheet.append(HEADERS)
    for row in table:
        sheet.append((row[0], date.fromisoformat(row[1]), *row[2:]))
    for column, width in zip("ABCDEF", (10, 12, 10, 80, 22, 8), strict=True):
        sheet.column_dimensions[column].width = width
    for cell in sheet[1]:
        cell.font = Font(bold=True)
    for (cell,) in sheet.iter_rows(min_row=2, min_col=4, max_col=4):
        cell.alignment = Alignment(wrap_text=True, vertical="top")
    sheet.freeze_panes = "A2"
    path = HERE / "問い合わせ.xlsx"
    book.save(path)
    _freeze_times(path)


def _freeze_times(path: Path) -> None:
    """Rewrites the archive with fixed times, so that the same rows give the same bytes."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            if name == "docProps/core.xml":
                start, end = content.index(b"<dcterms:modified"), content.index(b"</dcterms:modified>")
                value = content.index(b">", start) + 1
                content = content[:value] + b"2026-04-01T00:00:00Z" + content[end:]
            archive.writestr(zipfile.ZipInfo(name, STAMP), content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
