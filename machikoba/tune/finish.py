"""From what the ladder chose to a sealed bundle: refit, pack, prove through the engine, seal."""
from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from machikoba import __version__, files
from machikoba.adapt.contract import Train
from machikoba.adapt.fitted.kernel import KernelMachine
from machikoba.adapt.lora import LoraRung
from machikoba.base.encoder import Encoder
from machikoba.base.speed import machine
from machikoba.engine import judge
from machikoba.engine.runtime import Engine
from machikoba.errors import RequirementError
from machikoba.language import _
from machikoba.memory import peak_mib
from machikoba.pack.bundle import EXAMPLES, FORMAT, TOKENS, UNSEEN, Bundle, seal, write_file
from machikoba.pack.card import card, notice
from machikoba.pack.statement import missing
from machikoba.prove.certificate import Certificate, choose_thresholds, rows_needed, spent_level
from machikoba.prove.metrics import coverage_at_error, rate
from machikoba.records.origin import FILE
from machikoba.records.read import Example
from machikoba.records.split import time_split
from machikoba.settings import Prices, home
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels, correct, decide
from machikoba.tune import ladder
from machikoba.tune.ladder import Say, Tried, refit
from machikoba.tune.ledger import spend
from machikoba.tune.options import DEFAULT_HOLDOUT, Options
from machikoba.tune.recipe import recipe

MOST_WRONG = 300  # examples of mistakes that are kept


@dataclass(frozen=True)
class Plan:
    """Examples with their sets and groups, and the labels."""

    examples: list[Example]
    sets: list[str]
    groups: list[str]
    labels: Labels
    dates: list[str | None]

    def rows(self, *wanted: str) -> np.ndarray:
        """Indices of the examples in the sets `wanted`."""
        return np.flatnonzero(np.isin(self.sets, wanted))

    def train(self, rows: np.ndarray) -> Train:
        """The examples at `rows` to learn from."""
        place = {name: i for i, name in enumerate(self.labels.names)}
        labels = np.array([place[str(self.examples[i].label)] for i in rows], dtype=np.int64)
        groups = np.array([self.groups[i] for i in rows])
        return Train([self.examples[i].text for i in rows], labels, self.labels.names, groups, self.labels.none_index)

@dataclass(frozen=True)
class Climbed:
    """What the ladder found. chosen: the rung to use; outlook: how many messages a certificate would probably take."""

    plan: Plan
    tried: list[Tried]
    chosen: Tried
    outlook: dict[str, Any]


@dataclass(frozen=True)
class Clock:
    """When a run began: by the calendar, in processor seconds, on the clock."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    cpu: float = field(default_factory=time.process_time)
    wall: float = field(default_factory=time.monotonic)

    def charged(self, price: Prices) -> dict[str, Any]:
        """What the run has cost so far."""
        wall = time.monotonic() - self.wall
        return {"cpu_seconds": round(time.process_time() - self.cpu, 2), "wall_seconds": round(wall, 2),
                "yen": round(price.yen(wall), 4), "peak_mib": peak_mib(), "assumptions": price.to_dict()}


def finish(target: Path, name: str, data: dict[str, Any], climbed: Climbed, encoders: Sequence[Encoder], options: Options,
           clock: Clock, price: Prices, say: Say) -> dict[str, Any]:
    """Makes the bundle at `target`, whole or not at all; its summary.

    name: what the bundle will be called. data: the recipe's section on where the examples come from.
    Raises StorageError, RequirementError.
    """
    plan, where = climbed.plan, home()
    train_rows = plan.rows("train")
    train = plan.train(train_rows)
    chosen, fitted = refit(climbed.tried, climbed.chosen, train, options, price)
    assert isinstance(fitted, KernelMachine)
    with files.draft_folder(target) as draft:
        say("packing", 0, 1)
        facts = _facts(plan, chosen, fitted, encoders, options, train_rows)
        _write_parts(draft, plan, encoders, facts, fitted, data, options, chosen, clock.started)
        evidence, certificate, level = _prove(Engine(where), draft, facts, plan, chosen, options, where, climbed.outlook)
        facts["threshold"] = certificate.threshold if certificate else None
        write_file(draft, "bundle.json", facts)
        if certificate is None or not certificate.holds:
            certificate = None
        if options.require_certificate and certificate is None:
            raise _no_certificate(evidence)
        summary = {
            "bundle": str(target), "task": classify.NAME, "base": facts["base"]["name"] if facts["base"] else None,
            "rung": chosen.rung.name, "ladder": [step.to_dict() for step in climbed.tried],
            "further": [step.to_dict() for step in ladder.further(climbed.tried, encoders, train, price)],
            "test": evidence["test"], "certificate": certificate.to_dict() | level if certificate else None,
            "attempt": evidence["attempt"], "time_order": _time_order(plan, train_rows, chosen, options),
            "sets": {name: len(plan.rows(name)) for name in ("train", "certify", "test", "none")},
            "status": "qualified" if certificate else "apprentice", "cost": clock.charged(price)}
        rows = {which: evidence[which] for which in ("certify_rows", "wrong_rows")}
        write_file(draft, "proof.json", {**summary, "bundle": name, **rows, "made": clock.started.isoformat(timespec="seconds")})
        write_file(draft, "card.md", card(facts, summary, data["file"]))
        write_file(draft, "NOTICE", notice(facts))
        seal(draft)
    return summary


def example_lines(plan: Plan) -> bytes:
    """examples.jsonl."""
    return "".join(json.dumps({"id": e.id, "set": s, "group": g, "text": e.text, "label": e.label,
                               **({"origin": e.origin} if e.origin != FILE else {})}, ensure_ascii=False) + "\n"
                   for e, s, g in zip(plan.examples, plan.sets, plan.groups, strict=True)).encode()


def unseen_line(plan: Plan, chosen: Tried) -> bytes:
    """unseen.json. By the number of the line, so that it names no message: what is emptied there is nobody's here."""
    assert chosen.unseen is not None
    said: list[int | None] = [None] * len(plan.examples)
    for row, label in zip(plan.rows("train")[chosen.unseen.rows].tolist(), chosen.unseen.chosen.tolist(), strict=True):
        said[row] = label
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def _encoder_of(chosen: Tried, encoders: Sequence[Encoder]) -> Encoder | None:
    return next((encoder for encoder in encoders if encoder.base.name == chosen.rung.base), None)


def _facts(plan: Plan, chosen: Tried, fitted: KernelMachine, encoders: Sequence[Encoder], options: Options,
           train_rows: np.ndarray) -> dict[str, Any]:
    import scipy
    import sklearn

    unseen = chosen.unseen
    assert unseen is not None
    candidate, _coverage = coverage_at_error(unseen.confidence, unseen.correct, options.target_error)
    encoder = _encoder_of(chosen, encoders)
    base, versions = None, {"machikoba": __version__, "numpy": np.__version__, "scipy": scipy.__version__,
                            "scikit-learn": sklearn.__version__}
    if encoder is not None:
        import torch
        import transformers

        speed = encoder.speed
        source = encoder.base.source
        tuned = bool(fitted.adapter)
        base = {"name": encoder.base.name, "source": str(Path(source).resolve()) if Path(source).exists() else source,
                "sha256": encoder.base.sha256, "licence": encoder.base.licence, "notice": encoder.base.notice,
                "layer": fitted.choice.layer, "adapter": tuned, "both_ways": tuned and encoder.base.kind == "decoder",
                "dtype": speed.dtype, "threads": speed.threads, "reason": speed.reason}
        versions |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"format": FORMAT, "task": classify.NAME, "labels": list(plan.labels.names), "none_label": plan.labels.none,
            "never_automatic": list(plan.labels.never), "base": base, "rung": chosen.rung.name, "threshold": None,
            "candidate_threshold": candidate if np.isfinite(candidate) else None,
            "target_error": options.target_error, "confidence": options.confidence, "machine": machine(),
            "versions": versions}


def _write_parts(draft: Path, plan: Plan, encoders: Sequence[Encoder], facts: dict[str, Any], fitted: KernelMachine,
                 data: dict[str, Any], options: Options, chosen: Tried, started: datetime) -> None:
    write_file(draft, "bundle.json", facts)
    write_file(draft, "recipe.toml", recipe(data, options, facts, fitted.choice, chosen, started))
    write_file(draft, EXAMPLES, example_lines(plan))
    write_file(draft, UNSEEN, unseen_line(plan, chosen))
    encoder = _encoder_of(chosen, encoders)
    weights = {TOKENS: encoder.weights.save()} if encoder is not None and encoder.weights is not None else {}
    for name, content in (fitted.save() | weights).items():
        write_file(draft, f"weights/{name}", content)


def _prove(engine: Engine, draft: Path, facts: dict[str, Any], plan: Plan, chosen: Tried, options: Options, where: Path,
           outlook: dict[str, Any]) -> tuple[dict[str, Any], Certificate | None, dict[str, Any]]:
    """Certificate and test of the packed draft; without rows kept aside, the cross-validated figures."""
    unseen = chosen.unseen
    assert unseen is not None
    certify_rows, test_rows = plan.rows("certify"), plan.rows("test")
    candidate = facts["candidate_threshold"]
    if not len(certify_rows):
        train = plan.train(plan.rows("train"))
        answered = unseen.confidence >= candidate if candidate is not None else np.zeros(len(unseen.rows), dtype=bool)
        figures = judge.measure(train.labels[unseen.rows], unseen.scores.probabilities, unseen.confidence, answered, plan.labels,
                                "cross-validation")
        rows = plan.rows("train")[unseen.rows]
        return {"test": figures, "attempt": outlook, "certify_rows": [],
                "wrong_rows": _wrong(plan, rows, unseen.chosen, unseen.correct, answered)}, None, {}
    service = engine.prepare(Bundle(draft, facts))
    texts = [plan.examples[i].text for i in certify_rows]
    groups = [plan.groups[i] for i in certify_rows]
    n_groups = len(set(groups))
    thresholds = choose_thresholds(unseen.confidence, unseen.correct, n_groups, options.target_error,
                                   spent_level(options.confidence, 1))
    fingerprint = hashlib.sha256(b"".join([
        *(path.read_bytes() for path in sorted((draft / "weights").rglob("*")) if path.is_file()), thresholds.tobytes(),
        repr([(plan.examples[i].id, plan.examples[i].label) for i in certify_rows]).encode(),
        repr((options.target_error, options.confidence)).encode()])).hexdigest()
    k = spend(where, fingerprint, groups)
    level = spent_level(options.confidence, k)
    judged = judge.Judged(service, texts, [str(plan.examples[i].label) for i in certify_rows])
    certificate = judge.certify_judged(judged, groups, thresholds, options.target_error, level)
    threshold = certificate.threshold if certificate.holds else candidate
    told = judged.confidence >= threshold if threshold is not None else np.zeros(len(certify_rows), dtype=bool)
    rows = [{"id": plan.examples[i].id, "label": plan.labels.names[judged.chosen[j]], "answered": bool(told[j])}
            for j, i in enumerate(certify_rows)]
    test = judge.Judged(service, [plan.examples[i].text for i in test_rows],
                        [str(plan.examples[i].label) for i in test_rows])
    figures = judge.measure_judged(test, threshold, "held-out")
    attempt = {"answered": certificate.answered, "wrong": certificate.wrong, "needed": certificate.needed,
               "n": certificate.n, "k": k}
    at = threshold if threshold is not None else np.inf
    wrong = [row for kept, one in ((certify_rows, judged), (test_rows, test))
             for row in _wrong(plan, kept, one.chosen, one.correct, one.confidence >= at)]
    return ({"test": figures, "attempt": attempt, "certify_rows": rows, "wrong_rows": wrong[:MOST_WRONG]}, certificate,
            {"k": k, "confidence": options.confidence, "thresholds": thresholds.tolist()})


def _wrong(plan: Plan, rows: np.ndarray, chosen: np.ndarray, right: np.ndarray, answered: np.ndarray) -> list[dict[str, Any]]:
    """What was said wrongly of messages that it had not seen, by id: a page shows it beside the text."""
    return [{"id": plan.examples[i].id, "label": plan.labels.names[chosen[j]], "answered": bool(answered[j])}
            for j, i in enumerate(rows) if not right[j]][:MOST_WRONG]


def outlook(unseen: ladder.OutOfFold, messages: int, options: Options) -> dict[str, Any]:
    """How many messages in all a certificate would probably take, from out-of-fold errors; None when none would do."""
    rows = rows_needed(unseen.confidence, unseen.correct, options.target_error, spent_level(options.confidence, 1))
    kept_aside = DEFAULT_HOLDOUT * 2 / 3
    return {"messages_needed": round(rows / kept_aside) if rows else None, "messages": messages}


def _time_order(plan: Plan, train_rows: np.ndarray, chosen: Tried, options: Options) -> dict[str, Any] | None:
    """Trained on the oldest 80% of the training rows, how right on the newest 20%; None where there are no dates, and for a
    rung that trains the base: what it chose by cross-fitting it chose with the newest rows among the others."""
    parts = time_split([plan.dates[i] for i in train_rows])
    if parts is None or isinstance(chosen.rung, LoraRung):
        return None
    old, new = plan.train(train_rows[parts[0]]), plan.train(train_rows[parts[1]])
    if len(np.unique(old.labels)) < len(plan.labels.names):
        return None
    with ladder.arithmetic():
        scores = chosen.rung.fit(old, options.seed).predict(new.texts)
    chosen_labels, confidence = decide(scores, plan.labels)
    right = correct(new.labels, chosen_labels)
    found = rate(int(right.sum()), len(right))
    return {"n": len(right), "accuracy": found.value, "accuracy_interval": [found.low, found.high],
            "coverage_at_target": coverage_at_error(confidence, right, options.target_error)[1]}


def _no_certificate(evidence: dict[str, Any]) -> RequirementError:
    return RequirementError(
        "no_certificate", _("The goal was not proved, and --require-certificate was given. Nothing was kept."),
        expected=_("a proof that the mistakes stay below the limit"), found=missing(evidence["attempt"]),
        next=_("Add messages or correct their labels, raise --target-error, or leave --require-certificate out."))
