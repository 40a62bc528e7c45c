from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest

import machikoba
from machikoba.engine.table import predict_file
from machikoba.errors import DataError, OptionError, RequirementError
from machikoba.pack.bundle import open_bundle
from machikoba.tune.ledger import spend
from machikoba.tune.options import Options
from machikoba.tune.run import estimated
from machikoba.tune.run import tune as tune_run
from tests.conftest import messages, write_csv

QUICK = {"rungs": ("words",)}


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


@pytest.mark.skipif(os.name == "nt", reason="no such rights")
def test_a_home_that_is_made_is_its_users_alone(inquiries, home):
    before = os.umask(0)
    try:
        machikoba.tune(str(inquiries), **QUICK)
    finally:
        os.umask(before)
    assert home.stat().st_mode & 0o777 == 0o700


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


def test_steps_not_asked_for_are_named_while_the_goal_is_not_reached(tmp_path, tiny_encoder):
    path = write_csv(tmp_path / "noisy.csv", messages(200, noise=0.5))
    result = machikoba.tune(path, tmp_path / "a.bundle", rungs=("words", "features"), target_coverage=0.99,
                            bases=(str(tiny_encoder),))
    assert not any(step["target_met"] for step in result.summary["ladder"])
    more = result.summary["further"]
    assert [step["rung"] for step in more] == ["top", "lora"]
    assert all(step["estimate"]["wall_seconds"] > 0 and step["cv_accuracy"] is None for step in more)


def test_the_ladder_stops_when_words_do(tmp_path, tiny_encoder):
    path = write_csv(tmp_path / "a.csv", messages(400))
    result = machikoba.tune(path, tmp_path / "a.bundle", target_coverage=0.3, bases=(str(tiny_encoder),))
    words, features = result.summary["ladder"]
    assert words["target_met"]
    assert features["skipped_because"]
    assert result.summary["base"] is None
    assert result.summary["further"] == []


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


@pytest.mark.parametrize("options", [{"target_error": 0}, {"confidence": 1}, {"rungs": ("magic",)}, {"holdout": "0.9"},
                                     {"holdout": "x"}, {"seed": -1}])
def test_options_that_cannot_be_used(options):
    with pytest.raises(OptionError):
        Options(**options)


def test_an_existing_path_is_never_overwritten(inquiries, tmp_path):
    (tmp_path / "a.bundle").mkdir()
    with pytest.raises(OptionError) as caught:
        machikoba.tune(inquiries, tmp_path / "a.bundle", **QUICK)
    assert caught.value.code == "out_exists"


def test_ledger_counts_overlaps_but_not_repeats(home):
    assert spend(home, "one", ["a", "b"]) == 1
    assert spend(home, "two", ["b", "c"]) == 2
    assert spend(home, "one", ["a", "b"]) == 1
    assert spend(home, "three", ["x"]) == 1
    with (home / "certified.jsonl").open("a") as file:
        file.write('{"fingerprint": "half')  # a run killed while writing
    assert spend(home, "four", ["a"]) == 2
    assert spend(home, "five", ["a"]) == 3


def test_other_labels_of_the_certified_rows_are_a_question_of_their_own(tmp_path):
    rows = messages(700)
    ks = []
    for number in range(3):
        made = machikoba.tune(write_csv(tmp_path / f"{number}.csv", rows), tmp_path / f"{number}.bundle", rungs=("words",),
                              holdout="0.3")
        ks.append(made.summary["attempt"]["k"])
        certified = {row["id"] for row in open_bundle(made.path).proof()["certify_rows"]}
        texts = [one["text"] for one in open_bundle(made.path).examples() if one["id"] in certified][:5]
        if number == 1:
            rows = [(text, {"food": "bath"}.get(label, "food") if text in texts else label) for text, label in rows]
    assert ks == [1, 1, 2]


def test_what_it_would_cost_is_told_and_nothing_made(inquiries, home):
    records, steps = estimated(inquiries, Options(**QUICK))
    assert (len(records.examples), [step.rung.name for step in steps], steps[0].cv_accuracy) == (120, ["words"], None)
    assert steps[0].estimate.wall_seconds > 0
    assert not (home / "bundles").exists()
    with pytest.raises(OptionError):
        estimated(inquiries, Options(none_label="nothing of the kind"))


def test_each_step_is_told_as_it_comes(inquiries, tmp_path):
    told = []
    tune_run(inquiries, Options(holdout="none", **QUICK), tmp_path / "a.bundle",
             tell=lambda steps: told.append([(step.rung.name, step.cv_accuracy is not None) for step in steps]))
    assert told == [[("words", False)], [("words", True)]]


def test_mistakes_are_kept_by_id(made):
    proof = open_bundle(made.path).proof()
    examples = {example["id"]: example for example in open_bundle(made.path).examples()}
    wrong = proof["test"]["n"] - round(proof["test"]["accuracy"] * proof["test"]["n"])
    assert len([row for row in proof["wrong_rows"] if examples[row["id"]]["set"] == "test"]) == wrong
    assert all(examples[row["id"]]["label"] != row["label"] for row in proof["wrong_rows"])
