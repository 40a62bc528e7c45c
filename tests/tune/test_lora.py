"""The rung `lora` from file to answers, on tiny random models."""
from __future__ import annotations

import json

import numpy as np
import pytest

import machikoba
from machikoba.adapt import lora as rung
from machikoba.adapt import training_recipe, tuning
from machikoba.adapt.contract import Diverged
from machikoba.adapt.descent import schedule
from machikoba.adapt.training_recipe import Recipe
from machikoba.base.load import find_base
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.errors import BaseError, DataError, RequirementError
from machikoba.tune import estimate, ladder
from tests.conftest import messages, write_csv

PLAIN = Speed("float32", 1, "test", 1.0)


@pytest.fixture(params=["tiny_encoder", "tiny_decoder"])
def base_folder(request):
    return request.getfixturevalue(request.param)


def tune(data, out, base_folder, **options):
    return machikoba.tune(data, out, bases=(str(base_folder),), rungs=("lora",), target_coverage=0.5, **options)


def test_a_tuned_model_learns_and_the_bundle_answers_as_it_was_proved(inquiries, base_folder, tmp_path):
    made = tune(inquiries, tmp_path / "a.bundle", base_folder, holdout="none")
    step = made.summary["ladder"][0]
    assert (made.summary["rung"], step["rung"]) == ("lora", "lora")
    assert step["cv_accuracy"] > 0.8
    facts = json.loads((made.path / "bundle.json").read_bytes())
    assert facts["base"]["adapter"]
    assert facts["base"]["both_ways"] == (base_folder.name == "tiny-decoder")
    adapter = made.path / "weights" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_bytes())["peft_type"] == "LORA"
    service = machikoba.load(made.path)
    rows = messages(60)
    found = service.predict([text for text, _label in rows])
    assert np.mean([prediction.label == label for prediction, (_text, label) in zip(found, rows, strict=True)]) > 0.9


def test_same_recipe_same_bytes(inquiries, tiny_encoder, tmp_path):
    made = [tune(inquiries, tmp_path / f"{name}.bundle", tiny_encoder, holdout="none").path for name in "ab"]
    names = [path.relative_to(made[0]) for path in sorted((made[0] / "weights").rglob("*")) if path.is_file()]
    assert len(names) >= 6
    for name in names:
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes()


def test_the_adapter_proves_itself_on_rows_kept_aside(inquiries, tiny_encoder, tmp_path):
    made = tune(inquiries, tmp_path / "a.bundle", tiny_encoder, holdout="0.5", target_error=0.3)
    assert made.summary["test"]["source"] == "held-out"
    assert made.summary["sets"]["certify"] > 0


def noisy(folder):
    """120 messages, every fifth with a label of its own that nothing tells."""
    return write_csv(folder / "noisy.csv", [(text, label if i % 5 else "wrong")
                                            for i, (text, label) in enumerate(messages(120))])


def test_training_that_goes_astray_is_told_and_the_next_step_kept(tiny_encoder, tmp_path, monkeypatch):
    def diverge(*_args, **_options):
        raise Diverged(1.0, 9.0)

    monkeypatch.setattr(tuning.Tuner, "fit", diverge)
    data = noisy(tmp_path)
    made = machikoba.tune(data, tmp_path / "a.bundle", bases=(str(tiny_encoder),), rungs=("words", "lora"),
                          target_coverage=0.999, holdout="none")
    assert made.summary["rung"] == "words"
    assert "astray" in made.summary["ladder"][1]["skipped_because"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith((".bundle", ".draft"))) == ["a.bundle"]


def test_a_last_training_that_goes_astray_leaves_the_next_best(tiny_encoder, tmp_path, monkeypatch):
    def diverge(*_args, **_options):
        raise Diverged(1.0, 9.0)

    monkeypatch.setattr(rung.LoraRung, "fit", diverge)
    data = noisy(tmp_path)
    options = {"bases": (str(tiny_encoder),), "holdout": "none", "target_coverage": 0.999}
    monkeypatch.setattr("machikoba.tune.run.winner", lambda tried, _options: tried[-1])
    made = machikoba.tune(data, tmp_path / "a.bundle", rungs=("words", "lora"), **options)
    assert made.summary["rung"] == "words"
    assert "astray" in made.summary["ladder"][1]["skipped_because"]
    with pytest.raises(RequirementError) as caught:
        machikoba.tune(data, tmp_path / "b.bundle", rungs=("lora",), **options)
    assert caught.value.code == "nothing_left"
    assert not (tmp_path / "b.bundle").exists()


def test_a_rate_far_too_high_is_noticed(tiny_encoder, tmp_path):
    rows = messages(80)
    tuner = tuning.Tuner(find_base(str(tiny_encoder), tmp_path), PLAIN, tmp_path)
    texts = [text for text, _label in rows]
    tuner.read(texts)
    names = sorted({label for _text, label in rows})
    labels = np.array([names.index(label) for _text, label in rows])
    weights = TokenWeights.learn([tuner.tokens[text] for text in texts])
    with pytest.raises(Diverged):
        tuner.fit(texts, labels, Recipe(epochs=60, rate=30.0, head_rate=30.0, steepness=64.0), weights, seed=0)


def test_loss_falls_and_the_frozen_model_comes_back(base_folder, tmp_path):
    rows = messages(80)
    tuner = tuning.Tuner(find_base(str(base_folder), tmp_path), PLAIN, tmp_path)
    texts = [text for text, _label in rows]
    tuner.read(texts)
    names = sorted({label for _text, label in rows})
    labels = np.array([names.index(label) for _text, label in rows])
    weights = TokenWeights.learn([tuner.tokens[text] for text in texts])
    frozen = tuner.features(texts, weights)
    seen = []
    losses = tuner.fit(texts, labels, Recipe(epochs=6), weights, 0, lambda done, total: seen.append((done, total)))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert seen[-1][0] == seen[-1][1] == len(losses)
    tuned = tuner.features(texts, weights)
    tuner.keep(0.0)
    np.testing.assert_allclose(tuner.features(texts, weights), frozen, atol=1e-5)
    assert np.abs(tuned - frozen).max() > 1e-2
    tuner.reset()
    np.testing.assert_array_equal(tuner.features(texts, weights), frozen)


def test_a_label_without_a_row_does_not_stop_the_training(tiny_encoder, tmp_path):
    rows = messages(80)
    texts = [text for text, _label in rows]
    names = sorted({label for _text, label in rows})
    labels = np.array([names.index(label) for _text, label in rows])
    losses = []
    for shift in (0, 1):  # as if a first label had all its rows held out
        tuner = tuning.Tuner(find_base(str(tiny_encoder), tmp_path), PLAIN, tmp_path)
        tuner.read(texts)
        weights = TokenWeights.learn([tuner.tokens[text] for text in texts])
        losses.append(tuner.fit(texts, labels + shift, Recipe(epochs=3), weights, 0))
    assert losses[0] == losses[1]


def test_what_is_judged_is_trained_as_the_last_one_will_be(tiny_encoder, tmp_path, monkeypatch):
    from machikoba.adapt.contract import Train
    from machikoba.base.encoder import Encoder

    monkeypatch.setattr(training_recipe, "MANY_ROWS", 85)  # of 90 rows 60 are inside a fold
    rows = messages(90)
    names = tuple(sorted({label for _text, label in rows}))
    train = Train([text for text, _label in rows], np.array([names.index(label) for _text, label in rows]), names, np.arange(90))
    lora = rung.LoraRung("lora", rung.Bench(Encoder(find_base(str(tiny_encoder), tmp_path), lambda home: PLAIN, tmp_path)))
    recipes = []
    original = tuning.Tuner.fit
    monkeypatch.setattr(tuning.Tuner, "fit", lambda self, texts, labels, recipe, *rest: (
        recipes.append(recipe) or original(self, texts, labels, recipe, *rest)))
    lora.fit(train)
    assert len(recipes) == 4
    assert set(recipes) == {lora.recipe(90)}
    assert lora.recipe(90) != lora.recipe(60)


def test_every_row_is_trained_on_once_an_epoch():
    lengths = np.random.default_rng(0).integers(3, 200, 50).tolist()
    plan = schedule(lengths, Recipe(epochs=3), seed=1)
    assert np.bincount(np.concatenate(plan)).tolist() == [3] * 50
    assert all(len(rows) == 1 or len(rows) * max(lengths[i] for i in rows) <= 240 for rows in plan)


def test_each_row_is_judged_by_a_training_that_had_not_seen_it(tiny_encoder, tmp_path, monkeypatch):
    from machikoba.adapt.contract import Train
    from machikoba.base.encoder import Encoder

    rows = messages(90)
    names = tuple(sorted({label for _text, label in rows}))
    labels = np.array([names.index(label) for _text, label in rows])
    train = Train([text for text, _label in rows], labels, names, np.arange(90))
    lora = rung.LoraRung("lora", rung.Bench(Encoder(find_base(str(tiny_encoder), tmp_path), lambda home: PLAIN, tmp_path)))
    trained = []
    original = tuning.Tuner.fit
    monkeypatch.setattr(tuning.Tuner, "fit",
                        lambda self, texts, *rest: trained.append(set(texts)) or original(self, texts, *rest))
    found = lora.cross_fit(train, 0, lambda *_: None)
    assert sorted(found.rows.tolist()) == list(range(90))
    assert len(trained) == rung.FEW_FOLDS
    assert sum(90 - len(texts) for texts in trained) == 90
    start = 0
    for texts in trained:
        held = found.rows[start:start + 90 - len(texts)]
        assert not {train.texts[i] for i in held} & texts
        start += len(held)
    assert found.scores.probabilities.shape == (90, len(names))


def test_what_takes_long_is_rehearsed_first(inquiries, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "WORTH_REHEARSING", 0.0)
    made = tune(inquiries, tmp_path / "a.bundle", tiny_encoder, holdout="none")
    step = made.summary["ladder"][0]
    assert step["rehearsed"]["wall_seconds"] > 0
    assert step["rehearsed"]["peak_mib"] == step["estimate"]["peak_mib"]
    assert step["cv_accuracy"] > 0.8, "the rehearsal leaves no trace in the training"
    monkeypatch.setattr(estimate, "WORTH_REHEARSING", 1e9)
    again = tune(inquiries, tmp_path / "b.bundle", tiny_encoder, holdout="none")
    assert again.summary["ladder"][0]["rehearsed"] is None
    for path in sorted((made.path / "weights").rglob("*.safetensors")):
        assert path.read_bytes() == (again.path / path.relative_to(made.path)).read_bytes()


def test_a_rehearsal_over_the_limit_ends_the_step(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "rehearsed",
                        lambda rung, *_: estimate.Estimate(9e3, 9e3, 100, 1.0) if rung.name == "lora" else None)
    rows = [(text, label if i % 5 else "wrong") for i, (text, label) in enumerate(messages(120))]
    made = machikoba.tune(write_csv(tmp_path / "noisy.csv", rows), tmp_path / "a.bundle", bases=(str(tiny_encoder),),
                          rungs=("words", "lora"), holdout="none", target_coverage=0.999, budget_seconds=600.0)
    assert made.summary["rung"] == "words"
    assert "9000 seconds" in made.summary["ladder"][1]["skipped_because"]


def test_too_little_memory_says_what_to_change(inquiries, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "available_mib", lambda: 5)
    with pytest.raises(RequirementError) as caught:
        tune(inquiries, tmp_path / "a.bundle", tiny_encoder)
    assert "5 MiB are free" in caught.value.found
    assert "smaller open model" in caught.value.next
    assert not (tmp_path / "a.bundle").exists()


@pytest.mark.parametrize("name", ["top", "lora"])
def test_both_steps_find_the_same_kinds(inquiries, base_folder, tmp_path, name):
    made = machikoba.tune(inquiries, tmp_path / "a.bundle", bases=(str(base_folder),), rungs=(name,), target_coverage=0.5,
                          holdout="none")
    assert made.summary["rung"] == name
    assert made.summary["ladder"][0]["cv_accuracy"] > 0.8
    facts = json.loads((made.path / "weights" / "adapter" / "adapter_config.json").read_bytes())
    assert facts["target_modules"]
    lowest = any(".0." in module for module in facts["target_modules"])
    assert lowest == (name == "lora")


def test_a_tokenizer_without_padding_and_an_unknown_architecture(inquiries, tiny_decoder, tmp_path):
    import shutil

    folder = tmp_path / "no-padding"
    shutil.copytree(tiny_decoder, folder)
    facts = json.loads((folder / "tokenizer_config.json").read_text())
    facts.pop("pad_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    special = folder / "special_tokens_map.json"
    if special.exists():
        special.write_text("{}")
    made = tune(inquiries, tmp_path / "a.bundle", folder, holdout="none")
    assert made.summary["ladder"][0]["cv_accuracy"] > 0.8
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "martian"}))
    with pytest.raises(BaseError) as caught:
        tune(inquiries, tmp_path / "b.bundle", folder)
    assert caught.value.code == "base_unreadable"
    assert not (tmp_path / "b.bundle").exists()


def test_a_label_with_one_example_is_refused_before_training(tiny_encoder, tmp_path):
    data = write_csv(tmp_path / "one.csv", [*messages(80), ("一度だけの用件", "once")])
    with pytest.raises(DataError) as caught:
        tune(data, tmp_path / "a.bundle", tiny_encoder)
    assert caught.value.code == "label_too_small"
