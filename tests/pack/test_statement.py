"""What is promised is what was proved, in either language."""
from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.language import use_language
from machikoba.pack.statement import Load, alone, bill, missing, promise
from machikoba.settings import Prices


@pytest.fixture(params=["ja", "en"])
def language(request):
    use_language(request.param)
    yield request.param
    use_language(None)


def qualified(**certificate):
    held = {"n": 1_464, "coverage": 0.532, "max_error": 0.05, "confidence": 0.95, "answered": 779, "wrong": 3}
    return {"certificate": held | certificate, "test": {"accuracy": 0.8, "n": 10}, "attempt": {}, "cost": {"yen": 0.2}}


def apprentice(**attempt):
    return {"certificate": None, "test": {"accuracy": 0.7712, "n": 2_501}, "attempt": attempt, "cost": {"yen": 0.2}}


def numbers(sentences):
    return [word.replace(",", "") for word in re.findall(r"[\d,]*\d", " ".join(sentences))]


def test_the_promise_has_the_proofs_numbers(language):
    assert numbers(promise(qualified())) == ["1464", "53", "5", "95"]
    assert numbers(promise(qualified(max_error=0.02, confidence=0.9, coverage=0.8, n=200))) == ["200", "80", "2", "90"]


def test_the_sentence_of_a_shop_owner():
    use_language("ja")
    try:
        assert "".join(promise(qualified())) == (
            "検査のために取り分けた1,464通と同じような問い合わせなら、約53%に自動で答えます。自動で答えた分の誤りは、長い目で見て"
            "平均5%以下です（信頼度95%）。残りは人に渡します。")
    finally:
        use_language(None)


def test_an_apprentice_promises_nothing(language):
    told = promise(apprentice(messages_needed=4_100, messages=2_501))
    found = numbers(told)
    assert {"2501", "1929", "1600"} <= set(found)
    assert "5" not in found
    assert "95" not in found


def test_nobody_is_sent_to_sort_a_hundred_times_as_many(language):
    few, many = ({"messages_needed": n, "messages": 2_500} for n in (4_100, 222_500))
    assert "1,600" in missing(few)
    assert missing(many) == missing({"messages_needed": None, "messages": 2_500}) == missing({"answered": 9, "needed": None})
    assert "120" in missing({"answered": 90, "wrong": 2, "needed": 120})


@given(st.floats(0, 1e5), st.floats(0, 60), st.floats(0, 600), st.floats(0, 1), st.floats(0, 5_000))
def test_a_bill_adds_up(messages, minutes, seconds, coverage, wage):
    load = Load(messages, wage, minutes, seconds, hosted_yen_per_1000=100.0)
    found = bill(qualified(coverage=coverage), coverage, 500, load, Prices(), 0.02)
    assert found["alone"] + found["handed_over"] == pytest.approx(messages)
    assert found["hours_saved"] == pytest.approx(found["hours_by_hand"] - found["hours_checking"])
    assert found["yen_saved"] == pytest.approx(found["yen_by_hand"] - found["yen_checking"] - found["yen_machine"], abs=1e-6)
    assert found["yen_hosted"] == pytest.approx(messages / 10)


def test_an_apprentice_saves_only_what_its_suggestions_save():
    proof = apprentice(messages_needed=None, messages=9)
    assert alone(proof, "apprentice") == alone(qualified(), "suspended") == 0
    assert alone(qualified(), "qualified") == 0.532
    assert alone(proof | {"test": {"coverage": 0.4}}, "qualified") == 0.4, "promoted at work, at the threshold of the test"
    found = bill(proof, 0.0, 100, Load(60, 1_000, 1.0, 15, minutes_to_label=3), Prices(), 0.02)
    assert (found["hours_by_hand"], found["hours_checking"]) == (1.0, 0.25)
    assert found["yen_once"] == pytest.approx(0.2 + 5_000)
