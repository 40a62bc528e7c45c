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
    ("電話は090 - 1234 - 5678です", "phone"), ("+81 (0)90-1234-5678", "phone"), ("0120−123−456", "phone"),
    ("03(1234)5678", "phone"),
    ("090ー1234ー5678", "phone"), ("378282246310005", "card"), ("住所は123-4567です", "postal_code"),
    ("郵便123-4567", "postal_code"),
    ("普通（１２３４５６７）", "bank_account"), ("口座番号：1234567", "bank_account"), ("担当の田中です", "name"),
    ("名前は山田太郎です", "name"), ("タナカと申します", "name"), ("たなかと申します", "name"), ("奥田様でしょうか", "name"),
    ("松本人志様", "name"), ("千代田区霞が関1-2-3", "address"), ("大阪市北区梅田3丁目1番3号です", "address"),
])
def test_personal_data_is_found(text, kind):
    assert [f.kind for f in find(text)] == [kind]
    assert mask(text)[0] != text


@pytest.mark.parametrize("text", [
    "12,000円でした", "2024-05-01に2名", "5/12の夕食は18:30", "205号室です", "皆様によろしく", "お客様の声",
    "お子様ランチ", "3,980円×12個", "団体様40名", "ご馳走様でした", "お世話様です", "前回同様お願いします", "商品仕様を",
    "二名様で予約",
    "三人様", "さまざまな", "多種多様な", "県内さまざま", "田中の様子", "係の者様", "宿泊者様", "女将さん", "お父さん",
    "スタッフさん", "何様",
    "大仏様", "私は大丈夫です", "名前は不明です", "担当は男性です", "担当者の不足", "I am Japanese.", "I'm Sorry, but", "10-20個",
    "18:30-20:00", "2024-05-01 12:30", "注文番号 2024-0501-123456", "市内1-2日", "1000-2000円", "205-1号室",
])
def test_ordinary_numbers_and_words_stay(text):
    assert mask(text) == (text, [])


@given(st.text(max_size=60))
def test_findings_are_in_order_apart_and_inside(text):
    found = find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_only_the_name_is_masked_not_the_words_around_it():
    assert mask("予約 田中様、担当の佐藤です")[0] == "予約 〔氏名〕様、担当の〔氏名〕です"
    assert mask("山田 花子様")[0] == "〔氏名〕様"


def test_check_digit():
    number = my_number("12345678901")
    assert my_number_valid(number)
    assert not my_number_valid(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not my_number_valid("123")


def test_my_number_is_refused_before_anything_is_stored():
    number = my_number("12345678901")
    for columns, rows in (
            (("名前", "マイナンバー"), [(2, ("a", ""))]), (("text",), [(2, (f"個人番号は{number}です",))]),
            (("ﾏｲﾅﾝﾊﾞｰ",), [(2, ("a",))]), (("ＭＹ　ＮＵＭＢＥＲ",), [(2, ("a",))]), (("my_number",), []),
            (("text",), [(2, (f"ﾏｲﾅﾝﾊﾞｰは{number[:4]}－{number[4:8]}－{number[8:]}です",))]),
            ((number,), [(i, (my_number(f"{i:011d}"),)) for i in range(10, 20)]),
            (("id", "text"), [(i, (my_number(f"{i:011d}"), "b")) for i in range(10, 20)])):
        with pytest.raises(DataError) as caught:
            refuse_my_number(columns, rows, "a.csv")
        assert caught.value.code == "my_number"
        assert number not in str(caught.value.to_dict())


@pytest.mark.parametrize(("header", "cell"), [
    ("備考", "マイナンバーカードを忘れました"), ("備考", "伝票 123456789012"), ("text", "個人番号について")])
def test_ordinary_columns_are_not_refused(header, cell):
    assert not my_number_valid("123456789012")
    assert refuse_my_number((header,), [(i, (cell,)) for i in range(2, 12)], "a.csv") == []


def test_a_word_far_from_the_number_does_not_refuse():
    number = my_number("12345678901")
    assert len(refuse_my_number(("text",), [(2, ("マイナンバー" + "あ" * 21 + number,))], "a.csv")) == 1


def test_a_lone_number_is_masked_and_listed():
    number = my_number("12345678901")
    lone = refuse_my_number(("text",), [(7, (f"伝票 {number} の件",))], "a.csv")
    assert [(m.row, m.column) for m in lone] == [(7, "text")]
    assert number not in mask(f"伝票 {number} の件")[0]
