"""A person is found however phone, mail, name and LINE id are written, and nobody else with them."""
from __future__ import annotations

import pytest

from machikoba.errors import OptionError
from machikoba.records.person import Person

LINE = "U" + "4af4980629" * 3 + "ab"


def found(wanted, text):
    return Person.known_by([wanted]).within([text])


@pytest.mark.parametrize("wanted", [
    "090-1234-5678", "09012345678", "+81 90 1234 5678", "０９０（１２３４）５６７８", "0081-90-1234-5678"])
@pytest.mark.parametrize("text", [
    "電話は090-1234-5678です", "tel09012345678", "０９０－１２３４－５６７８へ", "090 1234 5678", "+81-90-1234-5678",
    "+81 (0)90 1234 5678", "(090)1234-5678", "090・1234・5678", "090ー1234ー5678", "090\u200b12345678", "090−1234−5678",
    "00819012345678", "090.1234.5678"])
def test_a_phone_number_in_any_spelling(wanted, text):
    assert found(wanted, text)


@pytest.mark.parametrize("text", ["090-1234-5679", "190-1234-5678", "注文番号 1090123456780", "80-1234-5678", "03-1234-5678", ""])
def test_other_numbers_are_others(text):
    assert not found("090-1234-5678", text)


@pytest.mark.parametrize(("wanted", "text"), [
    ("Taro@Example.jp", "ｔａｒｏ＠ｅｘａｍｐｌｅ．ｊｐ まで"), ("taro@example.jp", "mail:TARO@EXAMPLE.JP."),
    ("山田太郎", "山田 太郎です"), ("山田 太郎", "山田太郎と申します"), ("山田　太郎", "山田　太郎"), ("山田太郎", "山田・太郎"),
    ("ヤマダタロウ", "やまだ たろう"), ("ﾔﾏﾀﾞ", "ヤマダです"), ("高橋", "髙橋様"), ("髙橋", "高橋"), ("山﨑", "山崎さん"),
    ("Taro Yamada", "I am taro yamada."),
    (LINE, f"id={LINE.lower()}"), (LINE, LINE), ("1234", "会員 12-34"), ("+1 415 555 2671", "call +1 (415) 555-2671")])
def test_other_traces(wanted, text):
    assert found(wanted, text)


@pytest.mark.parametrize(("wanted", "text"), [
    ("taro@example.jp", "notaro@example.jp"), ("taro@example.jp", "taro@example.jp.example"), ("Ann", "I cannot come"),
    ("山田太郎", "山本太郎"),
    (LINE, LINE + "0"), ("1234", "12345"), ("Taro Yamada", "Taro Yamadaya")])
def test_others_are_not_meant(wanted, text):
    assert not found(wanted, text)


@pytest.mark.parametrize("wanted", ["", " ", "あ", "林", "12", "-", "(1)"])
def test_what_is_too_short_to_know_a_person_by(wanted):
    with pytest.raises(OptionError) as caught:
        Person.known_by([wanted])
    assert caught.value.code == "trace_too_short"
    assert wanted.strip() == "" or wanted not in caught.value.found


def test_an_id_means_every_copy_of_its_text():
    person = Person.known_by(["00ff00ff00ff00ff-2"])
    assert person.within([], id="00ff00ff00ff00ff")
    assert person.within([], id="00ff00ff00ff00ff-3")
    assert not person.within([], id="00ff00ff00ff00fe")
    assert Person.known_by(["a" * 32]).within([], id="a" * 32)


def test_several_traces_are_one_person():
    person = Person.known_by(["山田太郎", "090-1234-5678"])
    assert person.kinds == {"text", "phone"}
    assert person.within(["〔電話〕", "山田太郎"])
    assert not person.within([None, "花子"])
