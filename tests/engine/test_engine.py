from __future__ import annotations

import csv
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

import machikoba
from machikoba.engine.lanes import BusyError, Lanes
from machikoba.engine.prove import measure_file, replay_proof
from machikoba.engine.runtime import Engine
from machikoba.engine.table import predict_file
from machikoba.errors import BundleError, OptionError
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
    monkeypatch.setattr("machikoba.engine.replays.machine", lambda: "another processor")
    assert Engine(Path(os.environ["MACHIKOBA_HOME"])).load(made.path).qualified
    monkeypatch.setattr("machikoba.engine.replays.machine", lambda: "a third one")
    monkeypatch.setattr("machikoba.engine.runtime.replay", lambda service: ["some id"])
    service = Engine(Path(os.environ["MACHIKOBA_HOME"])).load(made.path)
    assert not service.qualified
    assert not any(p.answered for p in service.predict([text for text, _ in messages(20)]))


def test_other_versions_of_what_computes_replay_too(made, monkeypatch):
    replayed = []
    monkeypatch.setattr("machikoba.engine.runtime.replay", lambda service: replayed.append(service) or [])
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    assert engine.load(made.path).qualified
    assert replayed == [], "as it was made"
    monkeypatch.setattr("machikoba.engine.replays._version", lambda library: "9.9" if library == "numpy" else version(library))
    assert engine.load(made.path).qualified
    assert engine.load(made.path).qualified
    assert len(replayed) == 1, "once, then it is remembered"


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


@pytest.fixture
def two_bundles(tmp_path, tiny_encoder):
    """Two businesses on one base: one with frozen features, one that trained."""
    data = write_csv(tmp_path / "a.csv", messages(160, seed=1))
    made = [machikoba.tune(data, tmp_path / f"{rung}.bundle", bases=(str(tiny_encoder),), rungs=(rung,), holdout="none").path
            for rung in ("features", "lora")]
    return [*made, machikoba.tune(data, tmp_path / "words.bundle", **QUICK, holdout="none").path]


def test_bundles_on_one_base_share_it_and_do_not_change_each_other(two_bundles):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    services = [engine.open(path) for path in two_bundles]
    texts = [text for text, _label in messages(30, seed=8)]
    together = engine.answer([(service, texts[i::3]) for i, service in enumerate(services)])
    assert len(engine._trunks) == 1
    for i, path in enumerate(two_bundles):
        alone = machikoba.load(path).predict(texts[i::3])
        assert [p.label for p in together[i]] == [p.label for p in alone]
        assert [p.confidence for p in together[i]] == pytest.approx([p.confidence for p in alone], abs=1e-4)


def test_what_nobody_asks_for_is_dropped_and_comes_back(two_bundles):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    engine.resident_bytes = 1
    texts = [text for text, _label in messages(5, seed=8)]
    first = [engine.open(path).predict(texts) for path in two_bundles]
    assert list(engine._services) == [two_bundles[-1]]
    assert [engine.open(path).predict(texts) for path in two_bundles] == first


def test_updates_are_dropped_before_bundles_and_what_is_kept_is_counted(two_bundles, tmp_path):
    trained = [two_bundles[1], *(Path(shutil.copytree(two_bundles[1], tmp_path / f"{i}.bundle")) for i in range(3))]
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    texts = [text for text, _label in messages(5, seed=8)]
    wanted = engine.open(trained[0]).predict(texts)
    updates = next(iter(engine._updates.values())).nbytes
    engine.resident_bytes = 4 * engine.open(trained[0]).nbytes + updates
    for _ in range(2):
        for path in trained:
            assert engine.open(path).predict(texts) == wanted
            assert engine._kept_bytes == sum(service.nbytes for _seen, service in engine._services.values()) + sum(
                adapter.nbytes for adapter in engine._updates.values()) <= engine.resident_bytes
    assert (len(engine._services), len(engine._updates)) == (4, 1)
    shutil.rmtree(trained[-1])
    assert engine.held(trained[-1]) is None
    assert engine._kept_bytes == 3 * engine.open(trained[0]).nbytes, "the newest updates were those of the bundle that is gone"


def test_a_bundle_dropped_while_a_request_for_it_waits_still_answers(two_bundles):
    """The one that trained, whose updates are loaded only when its turn comes, among them."""
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    engine.resident_bytes = 1
    texts = [text for text, _label in messages(8, seed=8)]
    wanted = [[p.label for p in machikoba.load(path).predict(texts)] for path in two_bundles]
    answer, gate = engine.answer, threading.Event()
    engine.answer = lambda asked: gate.wait(30) and answer(asked)
    lanes = Lanes(engine)
    futures = [lanes.ask(engine.open(path), texts, "x") for path in two_bundles * 2]
    assert [path for path in two_bundles if engine.held(path)] == two_bundles[-1:], "the others were dropped while they wait"
    gate.set()
    assert [[p.label for p in future.result(60)] for future in futures] == wanted * 2
    assert len(engine._services) == 1
    lanes.close()


def test_who_asks_for_a_bundle_while_it_is_loaded_waits_for_it(made, monkeypatch):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    load, loads, gate = engine.load, [], threading.Event()

    def slowly(path):
        loads.append(path)
        gate.wait(10)
        return load(path)

    monkeypatch.setattr(engine, "load", slowly)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(engine.open, made.path) for _ in range(8)]
        while not loads:
            time.sleep(0.001)
        time.sleep(0.05)  # for the others to come as far as they can
        gate.set()
        services = {id(one.result(30)) for one in asked}
    assert (len(services), len(loads)) == (1, 1)


def test_an_error_of_loading_reaches_all_who_wait_and_the_next_tries_again(made, monkeypatch):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    load, loads, gate = engine.load, [], threading.Event()

    def fails(path):
        loads.append(path)
        gate.wait(10)
        raise BundleError("bundle_damaged", "x")

    monkeypatch.setattr(engine, "load", fails)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(engine.open, made.path) for _ in range(4)]
        while not loads:
            time.sleep(0.001)
        time.sleep(0.05)
        gate.set()
        errors = [one.exception(30) for one in asked]
    assert ([error.code for error in errors], len(loads)) == (["bundle_damaged"] * 4, 1)
    monkeypatch.setattr(engine, "load", load)
    assert engine.open(made.path).predict(["駐車場"])[0].label == "parking"


def test_a_glance_says_what_loading_would(made, tmp_path, monkeypatch):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    apprentice = machikoba.tune(write_csv(tmp_path / "a.csv", messages(120)), tmp_path / "b.bundle", **QUICK).path
    paths = [made.path, tmp_path / "none.bundle", apprentice]
    seen = engine.glance(paths)
    assert seen[1] is None
    for path, found in ((made.path, seen[0]), (apprentice, seen[2])):
        service = machikoba.load(path)
        assert (found.task, found.labels, found.qualified) == ("classify", service.labels.names, service.qualified)
    assert (seen[0].qualified, seen[2].qualified) == (True, False)


@pytest.mark.parametrize("stands", [True, False])
def test_a_bundle_of_another_machine_is_called_qualified_once_its_proof_stood_here(made, monkeypatch, stands):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    monkeypatch.setattr("machikoba.engine.replays.machine", lambda: f"a processor where it stands: {stands}")
    monkeypatch.setattr("machikoba.engine.runtime.replay", lambda service: [] if stands else ["some id"])
    assert not engine.glance([made.path])[0].qualified
    assert engine.open(made.path).qualified is stands
    assert engine.glance([made.path])[0].qualified is stands


def test_a_glance_follows_a_bundle_that_was_written_again(made, tmp_path):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    path = tmp_path / "copy.bundle"
    shutil.copytree(made.path, path)
    assert "parking" in engine.glance([path])[0].labels
    shutil.rmtree(path)
    assert engine.glance([path]) == [None]
    machikoba.tune(write_csv(tmp_path / "a.csv", [(text, f"my {label}") for text, label in messages(120)]), path, **QUICK)
    assert "my parking" in engine.glance([path])[0].labels


def test_an_open_bundle_is_read_once_until_it_changes(made, tmp_path):
    path = tmp_path / "copy.bundle"
    shutil.copytree(made.path, path)
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    service = engine.open(path)
    assert engine.open(path) is service
    shutil.rmtree(path)
    assert service.predict(["駐車場"])[0].label == "parking", "whoever has it in hand goes on"
    with pytest.raises(BundleError) as caught:
        engine.open(path)
    assert caught.value.code == "bundle_missing"
    shutil.copytree(made.path, path)
    assert engine.open(path) is not service


def test_lanes_answer_as_the_bundles_do(two_bundles):
    engine = Engine(Path(os.environ["MACHIKOBA_HOME"]))
    lanes = Lanes(engine)
    texts = [text for text, _label in messages(40, seed=8)]
    asked = [(path, lanes.ask(engine.open(path), texts, str(i))) for i, path in enumerate(two_bundles * 3)]
    for path, future in asked:
        wanted = machikoba.load(path).predict(texts)
        assert [p.label for p in future.result(60)] == [p.label for p in wanted]
    lanes.close()
    assert set(lanes.waiting) == {"words", engine.open(two_bundles[0]).reader.base.name}
    with pytest.raises(BusyError):
        lanes.ask(engine.open(two_bundles[0]), texts, "x")


def test_one_thread_runs_all_models_and_the_one_that_loaded_them_ends(two_bundles, monkeypatch):
    from machikoba.base.shared import SharedTrunk
    from machikoba.base.trunk import Trunk

    ran, loaded = set(), set()
    pool, settle = SharedTrunk.pool, Trunk._settle
    monkeypatch.setattr(SharedTrunk, "pool", lambda *a: ran.add(threading.current_thread().name) or pool(*a))
    monkeypatch.setattr(Trunk, "_settle", lambda *a: loaded.add(threading.current_thread().name) or settle(*a))
    engine, texts = Engine(Path(os.environ["MACHIKOBA_HOME"])), [text for text, _label in messages(4, seed=8)]
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda path: engine.open(path).predict(texts), two_bundles[:2] * 4))
    assert [len(ran), len(loaded)] == [1, 1]
    assert ran != loaded
    assert not {thread.name for thread in threading.enumerate()} & loaded
