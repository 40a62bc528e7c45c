from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

import machikoba
from machikoba.engine.prove import measure_file, replay_proof
from machikoba.engine.runtime import Engine
from machikoba.engine.table import predict_file
from machikoba.errors import BundleError, DataError, MachikobaError, OptionError, RequirementError, StorageError
from machikoba.pack.bundle import open_bundle
from machikoba.tune.ledger import spend
from machikoba.tune.options import Options
from tests.conftest import messages, write_csv

QUICK = {"rungs": ("words",)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of the rung `words` with a certificate, made once."""
    folder = tmp_path_factory.mktemp("made")
    os.environ["MACHIKOBA_HOME"] = str(folder / "home")
    rows = messages(700) + [(f"営業の電話 {i} 件目 {chr(0x4E00 + 97 * i)}{chr(0x5E00 + 13 * i)}", "other") for i in range(40)]
    path = write_csv(folder / "inquiries.csv", rows)
    return machikoba.tune(path, folder / "a.bundle", none_label="other", never_automatic=("room",), target_coverage=0.5,
                          **QUICK)


def test_summary_has_what_programs_read(made):
    summary = made.summary
    assert {"bundle", "task", "base", "rung", "ladder", "test", "certificate", "cost"} <= set(summary)
    assert {"rung", "cv_accuracy", "cv_interval", "coverage_at_target", "cpu_seconds", "wall_seconds", "yen", "peak_mib",
            "skipped_because"} <= set(summary["ladder"][0])
    assert {"n", "source", "accuracy", "macro_f1", "coverage", "error_among_answered"} <= set(summary["test"])
    assert summary["status"] == "qualified"
    assert summary["certificate"]["threshold"] is not None
    assert summary["certificate"]["k"] == 1
    assert summary["certificate"]["confidence_level"] == pytest.approx(0.975)
    assert sum(summary["sets"].values()) == 740
    json.dumps(summary, allow_nan=False)


def test_bundle_holds_what_the_design_lists(made):
    names = {p.relative_to(made.path).as_posix() for p in made.path.rglob("*") if p.is_file()}
    assert {"bundle.json", "recipe.toml", "examples.jsonl", "proof.json", "card.md", "NOTICE", "MANIFEST.sha256",
            "weights/machine.safetensors", "weights/vocabulary.json"} <= names
    recipe = tomllib.loads((made.path / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["settings"]["none_label"] == "other"
    assert len(recipe["data"]["sha256"]) == 64
    card = (made.path / "card.md").read_text(encoding="utf-8")
    assert "at most 5%" in card
    assert "誤りは5%以下" in card
    assert not any(e["text"] in card for e in open_bundle(made.path).examples())


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


def test_few_messages_make_an_apprentice(inquiries, tmp_path):
    result = machikoba.tune(inquiries, tmp_path / "a.bundle", **QUICK)
    assert result.summary["status"] == "apprentice"
    assert result.summary["certificate"] is None
    assert result.summary["test"]["source"] == "cross-validation"
    assert result.summary["sets"]["train"] == 120
    found = machikoba.load(result.path).predict(["駐車場 無料はありますか"])
    assert not found[0].answered


def test_same_recipe_same_bytes(inquiries, tmp_path):
    weights = []
    for name in ("a", "b"):
        result = machikoba.tune(inquiries, tmp_path / f"{name}.bundle", **QUICK)
        weights.append({p.name: p.read_bytes() for p in (result.path / "weights").iterdir()})
        predict_file(machikoba.load(result.path), inquiries, tmp_path / f"{name}.csv")
    assert weights[0] == weights[1]
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_features_on_an_encoder_and_a_decoder(inquiries, tmp_path, tiny_encoder, tiny_decoder):
    result = machikoba.tune(inquiries, tmp_path / "a.bundle", rungs=("features",), target_coverage=0.99,
                            bases=(str(tiny_encoder), str(tiny_decoder)))
    assert [step["base"] for step in result.summary["ladder"]] == ["tiny-encoder", "tiny-decoder"]
    assert machikoba.load(result.path).predict(["駐車場"])[0].label in {"parking", "food", "bath", "room"}


def test_the_ladder_stops_when_words_do(tmp_path, tiny_encoder):
    path = write_csv(tmp_path / "a.csv", messages(400))
    result = machikoba.tune(path, tmp_path / "a.bundle", target_coverage=0.3, bases=(str(tiny_encoder),))
    words, features = result.summary["ladder"]
    assert words["target_met"]
    assert features["skipped_because"]
    assert result.summary["base"] is None


def test_words_need_no_torch(inquiries, tmp_path):
    code = ("import sys, machikoba; r = machikoba.tune(sys.argv[1], sys.argv[2], rungs=('words',));"
            "machikoba.load(r.path).predict(['駐車場']); sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, str(inquiries), str(tmp_path / "a.bundle")], check=False)
    assert done.returncode == 0


def test_budget_and_memory_skip_with_a_reason(inquiries, tmp_path):
    with pytest.raises(RequirementError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", budget_seconds=0.01, **QUICK)
    assert caught.value.code == "nothing_tried"
    assert not list(tmp_path.glob("*.bundle"))


def test_required_certificate_keeps_nothing(inquiries, tmp_path):
    with pytest.raises(RequirementError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", require_certificate=True, **QUICK)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.glob("*bundle*"))


@pytest.mark.parametrize(("rows", "code"), [
    ([("a", "x")] * 20, "one_label"), ([("a b", "x"), ("c d", "x")] * 5 + [("e", "y"), ("f", "y")], "label_too_small")])
def test_labels_that_cannot_be_learnt(tmp_path, rows, code):
    with pytest.raises(DataError) as caught:
        machikoba.tune(write_csv(tmp_path / "a.csv", rows), tmp_path / "a.bundle", **QUICK)
    assert caught.value.code == code
    if code == "label_too_small":
        assert "12, 13" in caught.value.found


@pytest.mark.parametrize(("options", "code"), [
    ({"none_label": "zzz"}, "label_missing"), ({"never_automatic": ("zzz",)}, "label_missing")])
def test_labels_that_are_not_there(inquiries, tmp_path, options, code):
    with pytest.raises(OptionError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", **options, **QUICK)
    assert caught.value.code == code


@pytest.mark.parametrize("options", [{"target_error": 0}, {"confidence": 1}, {"rungs": ("lora",)}, {"holdout": "0.9"},
                                     {"holdout": "x"}, {"seed": -1}])
def test_options_that_cannot_be_used(options):
    with pytest.raises(OptionError):
        Options(**options)


def test_an_existing_path_is_never_overwritten(inquiries, tmp_path):
    (tmp_path / "a.bundle").mkdir()
    with pytest.raises(OptionError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", **QUICK)
    assert caught.value.code == "out_exists"


def test_interrupt_leaves_nothing(inquiries, tmp_path):
    from machikoba.tune.run import tune

    def stop(what: str, done: int, total: int) -> None:
        if what == "packing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(inquiries, Options(**QUICK), tmp_path / "a.bundle", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["inquiries.csv"]


class Fault:
    """Fails the n-th write, fsync or rename with a full disk."""

    def __init__(self, monkeypatch, at: int) -> None:
        self.at, self.count = at, 0
        real_open, real_fsync, real_rename = Path.open, os.fsync, Path.rename

        def tick() -> None:
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.ENOSPC, "No space left on device")

        def opened(path, mode="r", *args, **kwargs):
            file = real_open(path, mode, *args, **kwargs)
            if "w" in mode or "a" in mode:
                try:
                    tick()
                except OSError:
                    file.close()
                    raise
            return file

        monkeypatch.setattr(Path, "open", opened)
        monkeypatch.setattr(os, "fsync", lambda handle: (tick(), real_fsync(handle))[1])
        monkeypatch.setattr(Path, "rename", lambda path, target: (tick(), real_rename(path, target))[1])


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_write_leaves_nothing(tmp_path, monkeypatch, home):
    path = write_csv(tmp_path / "a.csv", messages(420))
    options = Options(holdout="0.4", **QUICK)
    from machikoba.tune.run import tune

    at = 1
    while True:
        with monkeypatch.context() as patched:
            fault = Fault(patched, at)
            with suppress(StorageError):
                tune(path, options, tmp_path / f"out{at}" / "a.bundle")
        if fault.count < at:
            break
        for left in (tmp_path / f"out{at}").glob("*"):  # whole, when only the last flush of the folder failed, or nothing
            assert left.name == "a.bundle"
            open_bundle(left)
        at += 1
    assert at > 15
    assert machikoba.load(tmp_path / f"out{at}" / "a.bundle").predict(["駐車場"])


def test_no_permission_to_write(inquiries, tmp_path, monkeypatch):
    real = Path.mkdir

    def forbidden(path, *args, **kwargs):
        if path.name.endswith(".draft"):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(StorageError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", **QUICK)
    assert caught.value.code == "disk_refused"


def test_damage_is_told_apart(made, tmp_path):
    import shutil

    def copy(name):
        shutil.copytree(made.path, tmp_path / name)
        return tmp_path / name

    def code(path):
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        return caught.value.code

    for i, name in enumerate(["weights/machine.safetensors", "examples.jsonl", "proof.json", "card.md"]):
        flipped = copy(f"flipped{i}")
        content = bytearray((flipped / name).read_bytes())
        content[len(content) // 2] ^= 1
        (flipped / name).write_bytes(content)
        assert code(flipped) == "bundle_damaged"
    lacking = copy("lacking")
    (lacking / "weights/vocabulary.json").unlink()
    assert code(lacking) == "bundle_incomplete"
    newer = copy("newer")
    facts = json.loads((newer / "bundle.json").read_text(encoding="utf-8"))
    (newer / "bundle.json").write_text(json.dumps(facts | {"format": 99}))
    assert code(newer) == "bundle_newer"
    assert code(tmp_path) == "bundle_missing"


def test_a_wrong_base_is_noticed(inquiries, tmp_path, tiny_encoder):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    result = machikoba.tune(inquiries, tmp_path / "a.bundle", rungs=("features",), bases=(str(base),))
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-8] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    with pytest.raises(BundleError) as caught:
        machikoba.load(result.path)
    assert caught.value.code == "bundle_wrong_base"
    shutil.rmtree(base)
    with pytest.raises(MachikobaError) as gone:
        machikoba.load(result.path)
    assert gone.value.code == "base_not_here"


def test_ledger_counts_overlaps_but_not_repeats(home):
    assert spend(home, "one", ["a", "b"]) == 1
    assert spend(home, "two", ["b", "c"]) == 2
    assert spend(home, "one", ["a", "b"]) == 1
    assert spend(home, "three", ["x"]) == 1
    with (home / "certified.jsonl").open("a") as file:
        file.write('{"fingerprint": "half')  # a run killed while writing
    assert spend(home, "four", ["a"]) == 2
    assert spend(home, "five", ["a"]) == 3


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
