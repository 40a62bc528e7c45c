from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

import machikoba
from machikoba.engine.prove import measure_file, replay_proof
from machikoba.engine.runtime import Engine
from machikoba.engine.table import predict_file
from machikoba.errors import OptionError
from tests.conftest import messages, write_csv

QUICK = {"rungs": ("words",)}


def test_served_as_proved(made):
    service = machikoba.load(made.path)
    assert replay_proof(service)["stands"]
    test = [e for e in service.bundle.examples() if e["set"] == "test"]
    found = service.predict([e["text"] for e in test])
    assert sum(p.answered for p in found) / len(test) == pytest.approx(made.summary["test"]["coverage"])


def test_none_label_and_never_automatic_are_always_left_to_a_person(made):
    service = machikoba.load(made.path)
    texts = [text for text, label in messages(80, seed=3) if label == "room"] + ["営業の電話 3 件目"]
    found = service.predict(texts)
    assert {p.label for p in found} <= {"room", "other"}
    assert not any(p.answered or p.would_answer for p in found)


def test_another_machine_replays_and_an_altered_answer_suspends(made, monkeypatch):
    monkeypatch.setattr("machikoba.engine.runtime.machine", lambda: "another processor")
    assert Engine(Path(os.environ["MACHIKOBA_HOME"])).load(made.path).qualified
    monkeypatch.setattr("machikoba.engine.runtime.machine", lambda: "a third one")
    monkeypatch.setattr("machikoba.engine.runtime.replay", lambda service: ["some id"])
    service = Engine(Path(os.environ["MACHIKOBA_HOME"])).load(made.path)
    assert not service.qualified
    assert not any(p.answered for p in service.predict([text for text, _ in messages(20)]))


@pytest.mark.parametrize("kind", ["csv", "tsv", "xlsx", "jsonl"])
def test_predict_keeps_rows_columns_and_order(made, tmp_path, kind):
    path = tmp_path / "in.csv"
    path.write_text("番号,text,備考\n1,駐車場 無料はありますか,=1+1\n2,,空\n3,\"朝食, 夕食の献立\",-5\n", encoding="utf-8")
    out = tmp_path / f"out.{kind}"
    counts = predict_file(machikoba.load(made.path), path, out)
    assert (counts["rows"], counts["empty"]) == (3, 1)
    if kind == "csv":
        assert out.read_bytes().startswith(b"\xef\xbb\xbf")
        rows = list(csv.reader(out.open(encoding="utf-8-sig", newline="")))
        assert rows[0] == ["番号", "text", "備考", "prediction", "confidence", "answered", "would_answer"]
        assert [row[0] for row in rows[1:]] == ["1", "2", "3"]
        assert rows[1][2] == "'=1+1"
        assert rows[3][2] == "-5"
        assert rows[2][3:] == ["", "", "", ""]
        assert rows[1][3] == "parking"
    else:
        from machikoba.records.read import open_table

        assert [row.cells[0] for row in open_table(out).rows()] == ["1", "2", "3"]


def test_predict_never_overwrites_what_it_reads(made, tmp_path):
    file = write_csv(tmp_path / "a.csv", messages(20))
    with pytest.raises(OptionError) as caught:
        predict_file(machikoba.load(made.path), file, tmp_path / "." / "a.csv")
    assert caught.value.code == "option_wrong"
    assert file.read_text(encoding="utf-8").startswith("text,label")


def test_measure_on_other_rows(made, tmp_path):
    rows = [*messages(200, seed=77), *[("猫を探しています", "stray")] * 10]
    found = measure_file(machikoba.load(made.path), write_csv(tmp_path / "b.csv", rows))
    assert found["unknown_labels"] == ["stray"]
    assert found["test"]["n"] == 210
    assert found["test"]["accuracy"] > 0.8
    assert found["test"]["scope"]["in_scope_accuracy"]["value"] > 0.9
    low, high = found["test"]["accuracy_interval"]
    assert low < found["test"]["accuracy"] < high


def test_explanation(made):
    from machikoba.engine.explain import explain

    found = explain(machikoba.load(made.path), "無料の駐車場はありますか")
    assert found.prediction.label == "parking"
    assert found.neighbours[0].label == "parking"
    assert found.neighbours[0].likeness >= found.neighbours[-1].likeness
    assert any(word.word == "駐車場" and word.effect > 0 for word in found.words)
