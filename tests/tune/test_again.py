"""What a bundle learns from people's decisions, and whether what it then is may take its place."""
from __future__ import annotations

import shutil
import zipfile
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machikoba.errors import DataError
from machikoba.pack.bundle import MANIFEST, UNSEEN, open_bundle, seal
from machikoba.pack.export import export
from machikoba.prove.certificate import spent_level
from machikoba.records.origin import AUDIT, HANDOFF, Given
from machikoba.tune.again import again, learn
from machikoba.tune.compare import LEAST_ROWS, WORSE_BY, compare, judged, paired
from tests.conftest import messages

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
FRESH = [(f"{text}。初めての文{chr(0x4E00 + 53 * i)}", label) for i, (text, label) in enumerate(messages(900)[740:])]


def told(rows, origin):
    return [Given(text, label, origin, MOMENT + timedelta(seconds=i)) for i, (text, label) in enumerate(rows)]


@pytest.fixture(scope="module")
def older(made):
    return open_bundle(made.path)


def by_text(lesson):
    return {example.text: example for example in lesson.examples}


def test_new_messages_join_with_their_origin(older):
    lesson = learn(older, told(FRESH[:20], HANDOFF) + told(FRESH[20:30], AUDIT))
    assert lesson.counts == {"handoff": 20, "audit": 10, "changed": 0, "same": 0, "left_out": 0}
    found = by_text(lesson)
    assert {found[text].origin for text, _label in FRESH[:20]} == {HANDOFF}
    assert {found[text].origin for text, _label in FRESH[20:30]} == {AUDIT}
    assert len(lesson.examples) == len(older.examples()) + 30


def test_a_person_knows_more_than_the_file(older):
    example = next(one for one in older.examples() if one["set"] == "train" and one["label"] == "food")
    lesson = learn(older, told([(example["text"], "bath")], HANDOFF))
    assert lesson.counts["changed"] == 1
    assert by_text(lesson)[example["text"]].label == "bath"
    kept_aside = next(one for one in older.examples() if one["set"] == "certify" and one["label"] == "food")
    lesson = learn(older, told([(kept_aside["text"], "bath")], HANDOFF))
    row = [example.text for example in lesson.examples].index(kept_aside["text"])
    assert lesson.known[row][0] == "none", "a proof is not mended where it hurts"
    lesson = learn(older, told([(kept_aside["text"], "bath")], AUDIT))
    assert lesson.known[row][0] == "certify", "what was drawn blind proves"


def test_the_last_word_counts_and_who_was_handed_over_stays_it(older):
    text = FRESH[0][0]
    lesson = learn(older, told([(text, "food"), (text, "bath")], HANDOFF) + told([(text, "bath")], AUDIT))
    assert (by_text(lesson)[text].label, by_text(lesson)[text].origin) == ("bath", HANDOFF)


def test_a_kind_that_it_never_had_needs_enough_messages(older):
    few, many = [(text, "犬") for text, _label in FRESH[:7]], [(text, "犬") for text, _label in FRESH[:8]]
    with pytest.raises(DataError) as caught:
        learn(older, told(few, HANDOFF))
    assert caught.value.code == "nothing_new"
    assert learn(older, told([*few, FRESH[20]], HANDOFF)).counts["left_out"] == 7
    assert learn(older, told(many, HANDOFF)).counts["handoff"] == 8


def test_personal_data_is_masked_as_in_a_file(older):
    lesson = learn(older, told([("電話は090-1234-5678です。駐車場の件で折り返しください", "parking")], HANDOFF))
    assert not any("090-1234-5678" in example.text + str(example.original) for example in lesson.examples)


def test_a_bundle_that_learnt_again(older, home, tmp_path):
    """Same sets for what was there, handed over messages in train only, the second price for rows that certified before."""
    home.mkdir()
    shutil.copy(older.path.parent / "home" / "certified.jsonl", home)  # what was certified on before
    lesson = learn(older, told(FRESH[:100], HANDOFF) + told(FRESH[100:160], AUDIT))
    again(older, lesson, tmp_path / "b.bundle", "b", lambda *_: None, tmp_path / "work")
    new = open_bundle(tmp_path / "b.bundle")
    before = {one["id"]: one["set"] for one in older.examples()}
    assert all(one["set"] in (before[one["id"]], "none") for one in new.examples() if one["id"] in before)
    origins = {one["set"]: set() for one in new.examples()}
    for one in new.examples():
        origins[one["set"]].add(one.get("origin", "file"))
    assert origins["train"] == {"file", HANDOFF, AUDIT}
    assert HANDOFF not in origins["certify"] | origins["test"]
    assert AUDIT in origins["certify"] | origins["test"]
    first, second = older.proof()["certificate"], new.proof()["certificate"]
    assert (first["k"], second["k"]) == (1, 2)
    levels = [one["confidence_level"] for one in (first, second)]
    assert levels == pytest.approx([spent_level(0.95, 1), spent_level(0.95, 2)])
    found = compare(older, new, lambda *_: None, tmp_path / "work")
    assert found.rows > 400
    assert found.as_good
    export(new.path, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        assert not [name for name in packed.namelist() if "unseen" in name or "examples" in name]


def test_an_older_bundle_is_asked_anew(older, tmp_path, home):
    """One that does not know what it said out of fold says the same when it is made to say it."""
    path = shutil.copytree(older.path, tmp_path / "old.bundle")
    (path / UNSEEN).unlink()
    (path / MANIFEST).unlink()
    seal(path)
    assert judged(open_bundle(path)) is None
    found = compare(open_bundle(path), older, lambda *_: None, tmp_path / "work")
    assert found.rows > 400
    assert abs(found.difference) < 0.02


rights = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=400)


@given(rights)
def test_it_takes_the_place_only_where_it_is_surely_no_worse(rows):
    old = {str(i): ("a", "a" if right else "b") for i, (right, _new) in enumerate(rows)}
    new = {str(i): ("a", "a" if right else "b") for i, (_old, right) in enumerate(rows)}
    found = paired(old, new)
    assert (found.rows, found.old_right, found.new_right) == (len(rows), sum(o for o, _n in rows), sum(n for _o, n in rows))
    assert found.enough == (len(rows) >= LEAST_ROWS)
    if found.as_good:
        assert found.rows >= LEAST_ROWS
        assert found.low > -WORSE_BY
        assert found.difference >= found.low
    if rows and found.difference <= -WORSE_BY:
        assert not found.as_good


def test_rows_whose_kind_changed_are_not_compared():
    found = paired({"1": ("a", "a"), "2": ("a", "b"), "3": ("a", "a")}, {"1": ("a", "b"), "2": ("b", "b"), "4": ("a", "a")})
    assert (found.rows, found.old_right, found.new_right) == (1, 1, 0)


def test_a_clear_gain_and_a_clear_loss():
    rng = np.random.default_rng(0)
    old = {str(i): ("a", "a" if right else "b") for i, right in enumerate(rng.random(1_000) < 0.8)}
    same = dict(old)
    worse = {key: ("a", "b") if i % 40 == 0 else value for i, (key, value) in enumerate(old.items())}
    assert paired(old, same).as_good
    assert not paired(old, worse).as_good
    assert paired(worse, old).as_good
