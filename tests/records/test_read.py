from __future__ import annotations

import csv
import datetime
import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook

from machikoba.errors import DataError
from machikoba.records.read import open_table, read
from machikoba.records.table import MAX_TEXT_CHARACTERS

JAPANESE = "受付日,問い合わせ内容,分類\n2024-04-01,駐車場はありますか,駐車場\n2024-04-02,朝食は何時からですか,食事\n"
cells = st.text(
    st.characters(codec="cp932", exclude_characters="\0\r\x1a\x80\xa0¢£¬‖−〜\uf8f0\uf8f1\uf8f2\uf8f3"), min_size=1, max_size=20)


def save(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def workbook(path: Path, rows: list[list], **sheets: list[list]) -> Path:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for name, more in sheets.items():
        sheet = book.create_sheet(name)
        for row in more:
            sheet.append(row)
    book.save(path)
    return path


def refused(path: Path, code: str, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    assert caught.value.code == code
    assert all((caught.value.message, caught.value.expected, caught.value.next))
    assert path.name in caught.value.message
    return caught.value


@pytest.mark.parametrize(("codec", "shown"), [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8 (BOM)"), ("utf-16", "UTF-16"),
                                              ("cp932", "CP932 (Shift_JIS)"), ("euc_jp", "EUC-JP")])
def test_japanese_encodings_are_told_apart(tmp_path, codec, shown):
    records = read(save(tmp_path / "a.csv", JAPANESE.encode(codec)))
    assert records.source.encoding == shown
    assert shown in records.source.reason
    assert [e.original for e in records.examples] == ["駐車場はありますか", "朝食は何時からですか"]
    assert [e.label for e in records.examples] == ["駐車場", "食事"]
    assert (records.text.name, records.label.name, records.date.name) == ("問い合わせ内容", "分類", "受付日")


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
       codec=st.sampled_from(["utf-8", "utf-8-sig", "cp932", "utf-16"]), delimiter=st.sampled_from([",", "\t"]))
def test_any_cells_survive_csv(tmp_path_factory, rows, codec, delimiter):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["見出し一あ", "見出し二い"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / f"a.{'tsv' if delimiter == chr(9) else 'csv'}"
    path.write_bytes(text.getvalue().encode(codec))
    table = open_table(path)
    if table.source.encoding.startswith(codec.upper()[:3]) or codec.startswith("utf"):
        assert [row.cells for row in table.rows()] == [row for row in rows if any(row)]


@given(rows=st.lists(st.tuples(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20), st.text(
    "あいうabc", min_size=1, max_size=5)), min_size=1, max_size=5))
def test_any_cells_survive_xlsx(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("xlsx") / "a.xlsx"
    book = Workbook()
    book.active.append(["text", "label"])
    for row in rows:
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"
    book.save(path)
    assert [row.cells for row in open_table(path).rows()] == rows


def test_cells_of_a_workbook_read_as_a_person_reads_them(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["text", "when", "n", "x"], ["a", datetime.date(2024, 5, 1), 3, 1.5]])
    assert [row.cells for row in open_table(path).rows()] == [("a", "2024-05-01", "3", "1.5")]


def test_row_numbers_are_those_that_a_spreadsheet_shows(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["問い合わせ一覧"], [], ["text", "label"], ["a b", "x"], [], ["c d", "y"]])
    assert [row.number for row in open_table(path).rows()] == [4, 6]
    lines = save(tmp_path / "b.csv", 'text,label\n"two\nlines",x\n\nlast,y\n')
    assert [row.number for row in open_table(lines).rows()] == [2, 4]


def test_first_sheet_with_rows_is_taken_and_said(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [], 四月=[["text", "label"], ["a", "x"], ["b", "y"]])
    records = read(path)
    assert records.source.sheet == "四月"
    assert "四月" in records.source.reason
    error = refused(path, "sheet_missing", sheet="五月")
    assert "四月" in error.expected


def test_jsonl(tmp_path):
    lines = [{"text": "a", "label": "x"}, {"text": "b", "label": "y", "note": 1}]
    path = save(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert read(path).columns == ("text", "label", "note")
    error = refused(save(tmp_path / "b.jsonl", '{"text": "a", "label": "x"}\nbroken\n'), "json_broken")
    assert "row 2" in error.message


def test_wrong_column_names_the_likeliest(tmp_path):
    path = save(tmp_path / "a.csv", JAPANESE)
    error = refused(path, "column_missing", label="分類名")
    assert "分類" in error.next
    assert "問い合わせ内容" in error.expected


@pytest.mark.parametrize(("content", "code"), [
    (b"", "file_empty"), (b"\n\n", "file_empty"), (b"text,label\n", "header_only"), (b"text,text\na,b\n", "duplicate_headers"),
    (b"text,label\na,x\nb,x\n", "one_label"), (b"text,label\na\0b,x\nc,y\n", "null_bytes"),
    (b"text,label\na,x,extra\nb,y\n", "row_too_wide"), (b"text,number\nhello there,1\nabc def,2\n", "no_label_column"),
    (b"text,label\n" + "駐車場,x\n".encode("cp932") + "駐車場,y\n".encode() + b"\xff\xfe\xfd\n", "encoding_mixed"),
])
def test_broken_text_files(tmp_path, content, code):
    refused(save(tmp_path / "a.csv", content), code)


def test_mixed_encodings_name_the_row_where_the_best_one_ends(tmp_path):
    office = "text,label\n" + "駐車場,x\n" * 30
    error = refused(save(tmp_path / "a.csv", office.encode("cp932") + "駐車場,y\n".encode()), "encoding_mixed")
    assert "row 32" in error.message


def test_a_label_column_may_have_hundreds_of_kinds(tmp_path):
    lines = [f"message number {i} about {i % 500},kind {i % 500}" for i in range(2_000)]
    assert len(read(save(tmp_path / "a.csv", "\n".join(["text,label", *lines]))).label_counts()) == 500


@pytest.mark.parametrize("size", [100_000, 10 << 20])
def test_a_huge_cell_names_its_row(tmp_path, size):
    error = refused(save(tmp_path / "a.csv", "text,label\nok,x\n" + "あ" * size + ",y\n"), "cell_too_long")
    assert "row 3" in error.message
    assert f"{MAX_TEXT_CHARACTERS:,}" in error.expected


def test_missing_folder_and_unknown_kinds(tmp_path):
    refused(tmp_path / "none.csv", "file_missing")
    refused(tmp_path, "not_a_file")
    refused(save(tmp_path / "a.docx", b"x"), "unknown_file_type")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path):
    path = save(tmp_path / "a.csv", JAPANESE)
    path.chmod(0)
    refused(path, "file_forbidden")


def test_broken_workbooks(tmp_path):
    refused(save(tmp_path / "a.xlsx", b"PK\x03\x04 not a workbook"), "workbook_broken")
    whole = workbook(tmp_path / "b.xlsx", [["text", "label"], ["a", "x"], ["b", "y"]])
    refused(save(tmp_path / "c.xlsx", whole.read_bytes()[:-200]), "workbook_broken")


def test_password_protected_workbook(tmp_path):
    msoffcrypto = pytest.importorskip("msoffcrypto.format.ooxml")
    plain = workbook(tmp_path / "a.xlsx", [["text", "label"], ["a", "x"]])
    locked = tmp_path / "locked.xlsx"
    with plain.open("rb") as source, locked.open("wb") as target:
        msoffcrypto.OOXMLFile(source).encrypt("secret", target)
    refused(locked, "password_protected")


def test_old_excel_under_a_new_name(tmp_path):
    xlwt = pytest.importorskip("xlwt")
    book = xlwt.Workbook()
    sheet = book.add_sheet("s")
    for i, row in enumerate([("text", "label"), ("a", "x"), ("b", "y")]):
        for j, cell in enumerate(row):
            sheet.write(i, j, cell)
    book.save(str(tmp_path / "old.xls"))
    (tmp_path / "old.xls").rename(tmp_path / "new.xlsx")
    assert len(read(tmp_path / "new.xlsx").examples) == 2


def test_merged_cells_are_named_but_a_merged_title_is_not(tmp_path):
    book = Workbook()
    for row in (["title", None], ["text", "label"], ["a", "x"], ["b", "y"]):
        book.active.append(row)
    book.active.merge_cells("A1:B1")
    book.save(tmp_path / "title.xlsx")
    assert len(read(tmp_path / "title.xlsx").examples) == 2
    book.active.merge_cells("B3:B4")
    book.save(tmp_path / "body.xlsx")
    error = refused(tmp_path / "body.xlsx", "merged_cells")
    assert "row 3" in error.message


def test_zip_bomb_is_refused_unopened(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"\0" * (80 << 20))
    refused(tmp_path / "bomb.xlsx", "file_explodes")


def test_personal_data_is_masked_and_labels_are_unified(tmp_path):
    path = save(tmp_path / "a.csv", "text,label\n電話は090-0000-1234です,ﾖﾔｸ\n空いていますか,ヨヤク\nまた来ます,ヨヤク\n"
                "食事は,食事\n,食事\n遅い,\n")
    records = read(path)
    assert records.examples[0].text == "電話は〔電話〕です"
    assert records.examples[0].original == "電話は090-0000-1234です"
    assert records.merged_labels == {"ﾖﾔｸ": "ヨヤク"}
    assert (records.rows_without_text, records.rows_without_label) == ([6], [7])
    assert records.personal == {"phone": 1}
