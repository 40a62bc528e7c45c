from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.errors import DataError
from machikoba.records.privacy import find, mask, my_number_valid, refuse_my_number


def my_number(first_eleven: str) -> str:
    return next(first_eleven + d for d in "0123456789" if my_number_valid(first_eleven + d))


@pytest.mark.parametrize(("text", "kind"), [
    ("連絡先は090-1234-5678です", "phone"), ("０３－１２３４－５６７８まで", "phone"), ("TEL 0312345678", "phone"),
    ("+81 90 1234 5678", "phone"), ("taro@example.jp に返信を", "mail"), ("カードは4111 1111 1111 1111です", "card"),
    ("〒123-4567", "postal_code"), ("普通 1234567 です", "bank_account"), ("田中と申します", "name"), ("佐藤花子様 2名", "name"),
    ("My name is John Smith.", "name"), ("東京都千代田区霞が関1-2-3に住んでいます", "address"),
    ("LINE ID: taro_1234", "line_id"),
])
def test_personal_data_is_found(text, kind):
    assert [f.kind for f in find(text)] == [kind]
    assert mask(text)[0] != text


@pytest.mark.parametrize("text", [
    "12,000円でした", "2024-05-01に2名", "5/12の夕食は18:30", "205号室です", "皆様によろしく", "お客様の声",
    "お子様ランチ", "3,980円×12個", "団体様40名",
])
def test_ordinary_numbers_and_words_stay(text):
    assert mask(text) == (text, [])


@given(st.text(max_size=60))
def test_findings_are_in_order_apart_and_inside(text):
    found = find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_check_digit():
    number = my_number("12345678901")
    assert my_number_valid(number)
    assert not my_number_valid(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not my_number_valid("123")


def test_my_number_is_refused_before_anything_is_stored():
    number = my_number("12345678901")
    for columns, rows in (
            (("名前", "マイナンバー"), [(2, ("a", ""))]), (("text",), [(2, (f"個人番号は{number}です",))]),
            (("id", "text"), [(i, (my_number(f"{i:011d}"), "b")) for i in range(10, 20)])):
        with pytest.raises(DataError) as caught:
            refuse_my_number(columns, rows, "a.csv")
        assert caught.value.code == "my_number"
        assert number not in str(caught.value.to_dict())


def test_a_lone_number_is_masked_and_listed():
    number = my_number("12345678901")
    lone = refuse_my_number(("text",), [(7, (f"伝票 {number} の件",))], "a.csv")
    assert [(m.row, m.column) for m in lone] == [(7, "text")]
    assert number not in mask(f"伝票 {number} の件")[0]
