from __future__ import annotations

import json

from machikoba.records.check import check


def test_report_names_every_trouble_with_its_rows(tmp_path):
    path = tmp_path / "a.csv"
    rows = ["text,label", *(f"部屋の件その{chr(0x4E00 + i)}{chr(0x4F00 + 7 * i)}{chr(0x5F00 + 3 * i)},部屋" for i in range(9)),
            "駐車場はありますか,駐車場", "駐車場はありますか,食事", ",食事", "電話は090-0000-1111,"]
    path.write_text("\n".join(rows), encoding="utf-8")
    report = check(path)
    assert report.labels == {"部屋": 9, "駐車場": 1, "食事": 1}
    assert report.small_labels == {"駐車場": [11], "食事": [12]}
    assert report.exact_duplicates == [12]
    assert report.contradictions == [[11, 12]]
    assert report.rows_without_text == [13]
    assert report.personal == {"phone": 1}
    text = "\n".join(report.lines())
    assert all(word in text for word in ("部屋 9", "rows 11, 12", "〔電話〕 1"))
    json.dumps(report.to_dict())


def test_a_file_without_labels_is_fine_to_check(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("内容\n駐車場はありますか\n朝食は何時ですか\n", encoding="utf-8")
    assert check(path).labels == {}
    assert any("none yet" in line for line in check(path).lines())


def test_hundreds_of_small_labels_take_few_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label", *(f"message {i} of {i % 60} kinds,kind {i % 60}" for i in range(120))]), "utf-8")
    report = check(path)
    assert len(report.small_labels) == 60
    assert len([line for line in report.lines() if line.startswith("few")]) == 6
    assert "30 more" in "\n".join(report.lines())
