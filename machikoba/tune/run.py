"""From a file to a tested bundle: read, split, climb, refit, pack, prove through the engine, seal."""
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
from machikoba.base.catalog import default_base
from machikoba.base.encoder import Encoder
from machikoba.base.load import find_base
from machikoba.base.speed import machine, measured_speed
from machikoba.engine import judge
from machikoba.engine.runtime import Engine
from machikoba.errors import DataError, OptionError, RequirementError
from machikoba.language import _
from machikoba.memory import peak_mib
from machikoba.pack.bundle import FORMAT, SUFFIX, TOKENS, Bundle, seal, write_file
from machikoba.pack.card import card, notice
from machikoba.prove.certificate import (
    Certificate,
    certificate_chance,
    choose_thresholds,
    minimum_answered,
    rows_needed,
    spent_level,
)
from machikoba.prove.metrics import coverage_at_error, rate
from machikoba.records.clean import near_duplicate_links
from machikoba.records.read import Example, Records, read, same_label
from machikoba.records.split import assign_sets, oldest_first, time_split
from machikoba.settings import Prices, home, prices
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels, correct, decide
from machikoba.tune import ladder
from machikoba.tune.ladder import Say, Tried, climb, refit, winner
from machikoba.tune.ledger import spend
from machikoba.tune.options import DEFAULT_HOLDOUT, Options
from machikoba.tune.recipe import recipe
from machikoba.work import WorkFolder, key

LEAST_PER_LABEL = 5  # examples; fewer cannot be judged by five folds
LEAST_DIFFERENT = 20  # messages, near duplicates counted once
WORTH_HOLDING_OUT = 0.8  # chance of a certificate from which "auto" keeps rows aside


@dataclass(frozen=True)
class Result:
    """What `tune` made. `summary` is the object of `tune --json`."""

    path: Path
    summary: dict[str, Any]
    records: Records
    tried: list[Tried]
    chances: dict[str, Any] = field(default_factory=dict)


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


def tune(data: str | Path, options: Options | None = None, out: str | Path | None = None, say: Say = lambda *_: None,
         announce: Any = None, resume: bool = False) -> Result:
    """Makes a bundle from the records in `data`.

    out: the bundle's own path (default: HOME/bundles, named after the file). say: called with what is going on and how
    far. announce: called once with (records, tried steps not yet run) before anything is spent. resume: goes on where an
    earlier call with the same data and options was interrupted; the weights come out the same to the byte.
    Raises MachikobaError; no half-made bundle is left behind, also when interrupted.
    """
    options = options or Options()
    price, where = prices(), home()
    target = _target(data, out, where)
    started = datetime.now(UTC)
    cpu, wall = time.process_time(), time.monotonic()
    records = read(data, text=options.text, label=options.label, sheet=options.sheet)
    labels = _labels(records, options)
    links = near_duplicate_links([example.text for example in records.examples])
    _enough_different(records, links)
    work = WorkFolder(where / "work" / key(files.digest(records.source.path), options, __version__))
    if not resume:
        work.begin()
    encoders = [Encoder(find_base(name, where), measured_speed, where, work=work) for name in _base_names(options)]
    for encoder in encoders:
        encoder.progress = lambda done, total: say("reading", done, total)
    rungs = classify.ladder(encoders, options.rungs)
    plan = _plan(records, labels, links, options.holdout_share)
    if announce:
        from machikoba.tune.estimate import estimate

        announce(records, [Tried(rung, estimate(rung, plan.train(plan.rows("train")), price)) for rung in rungs])
    plan, tried, chosen, outlook = _climb(records, plan, labels, links, rungs, options, price, say)
    train_rows = plan.rows("train")
    train = plan.train(train_rows)
    fitted = refit(chosen, train, options, price)
    assert isinstance(fitted, KernelMachine)
    engine = Engine(where)
    with files.draft_folder(target) as draft:
        say("packing", 0, 1)
        facts = _facts(plan, chosen, fitted, encoders, options, train_rows)
        _write_parts(draft, plan, encoders, facts, fitted, records, options, chosen, started)
        evidence, certificate, level = _prove(engine, draft, facts, plan, chosen, options, where, outlook)
        facts["threshold"] = certificate.threshold if certificate else None
        write_file(draft, "bundle.json", facts)
        if certificate is None or not certificate.holds:
            certificate = None
        if options.require_certificate and certificate is None:
            raise _no_certificate(evidence)
        charged = {"cpu_seconds": round(time.process_time() - cpu, 2), "wall_seconds": round(time.monotonic() - wall, 2),
                   "yen": round(price.yen(time.monotonic() - wall), 4), "peak_mib": peak_mib(),
                   "assumptions": price.to_dict()}
        summary = {
            "bundle": str(target), "task": classify.NAME, "base": facts["base"]["name"] if facts["base"] else None,
            "rung": chosen.rung.name, "ladder": [step.to_dict() for step in tried],
            "further": [step.to_dict() for step in ladder.further(tried, encoders, train, price)], "test": evidence["test"],
            "certificate": certificate.to_dict() | level if certificate else None,
            "attempt": evidence["attempt"], "time_order": _time_order(plan, train_rows, chosen, options),
            "sets": {name: len(plan.rows(name)) for name in ("train", "certify", "test", "none")},
            "status": "qualified" if certificate else "apprentice", "cost": charged}
        write_file(draft, "proof.json", {**summary, "bundle": target.name, "certify_rows": evidence["certify_rows"],
                                         "made": started.isoformat(timespec="seconds")})
        write_file(draft, "card.md", card(facts, summary, records.source.path.name))
        write_file(draft, "NOTICE", notice(facts))
        seal(draft)
    work.end()
    say("packing", 1, 1)
    return Result(target, summary, records, tried)


def _target(data: str | Path, out: str | Path | None, where: Path) -> Path:
    if out is not None:
        target = Path(out).expanduser().resolve()
        if target.exists():
            raise OptionError("out_exists", _("{path} exists already, and a bundle is never changed.").format(path=target),
                              expected=_("a path that is free"), found=_("a file or folder"),
                              next=_("Choose another --out, or delete the old one."))
        return target
    stem = Path(data).stem or "bundle"
    target, number = where / "bundles" / f"{stem}{SUFFIX}", 2
    while target.exists():
        target, number = where / "bundles" / f"{stem}-{number}{SUFFIX}", number + 1
    return target


def _base_names(options: Options) -> Sequence[str]:
    if not set(options.rungs) - {"words"}:
        return ()
    return options.bases or (default_base(classify.NAME).name,)


def _labels(records: Records, options: Options) -> Labels:
    counts = records.label_counts()

    def named(wanted: str, option: str) -> str:
        found = next((label for label in counts if same_label(label, wanted)), None)
        if found is None:
            raise OptionError("label_missing", _("No message has the label {label} of --{option}.").format(
                label=wanted, option=option), expected=_("one of: {names}").format(names=", ".join(sorted(counts))),
                found=wanted, next=_("Write it as in the file."))
        return found

    none = named(options.none_label, "none-label") if options.none_label is not None else None
    never = tuple(dict.fromkeys(named(name, "never-automatic") for name in options.never_automatic))
    small = sorted(label for label in counts if counts[label] < LEAST_PER_LABEL and label != none)
    if small:
        rows = {label: [e.row for e in records.examples if e.label == label] for label in small}
        raise DataError(
            "label_too_small", _("Some labels of {where} have too few messages.").format(where=records.source.where()),
            expected=_("at least {n} messages of each label").format(n=LEAST_PER_LABEL),
            found="; ".join(_("{label}: {n} (rows {rows})").format(label=label, n=counts[label], rows=", ".join(map(str, r)))
                            for label, r in rows.items()),
            next=_("Add messages of these kinds, or give them the label of a neighbouring kind or of \"other\"."))
    if len([label for label in counts if label != none]) < 2:
        raise DataError("one_label", _("All messages of {where} are of one kind.").format(where=records.source.where()),
                        expected=_("at least two kinds, not counting the one of --none-label"), found=", ".join(counts),
                        next=_("Check that the right column was chosen (--label)."))
    return Labels(tuple(sorted(counts)), none, never)


def _enough_different(records: Records, links: np.ndarray) -> None:
    """Raises DataError where cross-validation would have nothing left to learn from: copies are never split."""
    _sets, groups = assign_sets([example.id for example in records.examples], links, 0.0, None)
    if len(set(groups)) < LEAST_DIFFERENT:
        raise DataError(
            "too_alike", _("Too few messages of {where} differ.").format(where=records.source.where()),
            expected=_("at least {n} messages that differ in more than their numbers").format(n=LEAST_DIFFERENT),
            found=_("{n} messages").format(n=len(set(groups))), next=_("Add more messages as customers wrote them."))


def _plan(records: Records, labels: Labels, links: np.ndarray, holdout: float) -> Plan:
    examples = records.examples
    dates = [example.date for example in examples]
    sets, groups = assign_sets([example.id for example in examples], links, holdout, oldest_first(dates))
    if not holdout:
        sets = ["train"] * len(examples)
    return Plan(examples, list(sets), groups, labels, dates)


def _climb(records: Records, plan: Plan, labels: Labels, links: np.ndarray, rungs: Any, options: Options, price: Prices,
           say: Say) -> tuple[Plan, list[Tried], Tried, dict[str, Any]]:
    """Climbs; under "auto" keeps rows aside only where they have a fair chance of earning a certificate.

    The last of the four: how many messages a certificate would probably take.
    """
    auto = options.holdout == "auto"
    if auto and not _could_certify(plan, None, options):
        plan, auto = _plan(records, labels, links, 0.0), False
    outlook: dict[str, Any] | None = None
    while True:
        tried = climb(plan.train(plan.rows("train")), rungs, labels, options, price, say)
        chosen = winner(tried, options)
        if chosen is None or chosen.unseen is None:
            raise RequirementError(
                "nothing_tried", _("No way of tuning fits the limits."),
                expected=_("time and memory for at least one"),
                found="; ".join(f"{step.rung.name}: {step.skipped_because}" for step in tried),
                next=_("Raise --budget, name more --rungs, close other programs, or take a smaller open model: `machikoba bases` "
                       "lists them with their memory."))
        outlook = outlook or _outlook(chosen.unseen, len(plan.examples), options)
        if not auto or _could_certify(plan, chosen, options):
            return plan, tried, chosen, outlook
        plan, auto = _plan(records, labels, links, 0.0), False


def _could_certify(plan: Plan, chosen: Tried | None, options: Options) -> bool:
    """Whether the certify rows would earn a certificate with an 80% chance; before climbing: whether any could."""
    n_certify = len({plan.groups[i] for i in plan.rows("certify")})
    level = spent_level(options.confidence, 1)
    if chosen is None or chosen.unseen is None:
        return n_certify >= minimum_answered(options.target_error, level)
    unseen = chosen.unseen
    chance = certificate_chance(unseen.confidence, unseen.correct, n_certify, options.target_error, level)
    return chance >= WORTH_HOLDING_OUT


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
                 records: Records, options: Options, chosen: Tried, started: datetime) -> None:
    write_file(draft, "bundle.json", facts)
    write_file(draft, "recipe.toml", recipe(records, options, facts, fitted.choice, chosen, started))
    lines = [json.dumps({"id": e.id, "set": s, "group": g, "text": e.text, "label": e.label}, ensure_ascii=False) + "\n"
             for e, s, g in zip(plan.examples, plan.sets, plan.groups, strict=True)]
    write_file(draft, "examples.jsonl", "".join(lines))
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
        return {"test": figures, "attempt": outlook, "certify_rows": []}, None, {}
    service = engine.prepare(Bundle(draft, facts))
    texts = [plan.examples[i].text for i in certify_rows]
    groups = [plan.groups[i] for i in certify_rows]
    n_groups = len(set(groups))
    thresholds = choose_thresholds(unseen.confidence, unseen.correct, n_groups, options.target_error,
                                   spent_level(options.confidence, 1))
    fingerprint = hashlib.sha256(b"".join([
        *(path.read_bytes() for path in sorted((draft / "weights").rglob("*")) if path.is_file()), thresholds.tobytes(),
        "\n".join(plan.examples[i].id for i in certify_rows).encode()])).hexdigest()
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
    return ({"test": figures, "attempt": attempt, "certify_rows": rows}, certificate,
            {"k": k, "confidence": options.confidence, "thresholds": thresholds.tolist()})


def _outlook(unseen: ladder.OutOfFold, messages: int, options: Options) -> dict[str, Any]:
    """How many messages in all a certificate would probably take, from out-of-fold errors; None when none would do."""
    rows = rows_needed(unseen.confidence, unseen.correct, options.target_error, spent_level(options.confidence, 1))
    kept_aside = DEFAULT_HOLDOUT * 2 / 3
    return {"messages_needed": round(rows / kept_aside) if rows else None, "messages": messages}


def _time_order(plan: Plan, train_rows: np.ndarray, chosen: Tried, options: Options) -> dict[str, Any] | None:
    """Trained on the oldest 80% of the training rows, how right on the newest 20%; None where there are no dates."""
    parts = time_split([plan.dates[i] for i in train_rows])
    if parts is None:
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


def missing(attempt: dict[str, Any]) -> str:
    """What a certificate still takes, in plain words."""
    if "messages_needed" in attempt:
        if attempt["messages_needed"] is None:
            return _("the mistakes are too frequent: more messages alone will not do")
        more = max(1, attempt["messages_needed"] - attempt["messages"])
        more = f"{round(more, 2 - len(str(more))):,}"  # an extrapolation: two digits are more than it knows
        return _("about {n} more sorted messages are needed (an 80% chance at the mistakes seen so far)").format(n=more)
    seen = _("{answered} answers checked, {wrong} wrong").format(answered=attempt["answered"], wrong=attempt["wrong"])
    if attempt["needed"] is None:
        return seen + "; " + _("the mistakes are too frequent: more messages alone will not do")
    return seen + "; " + _("about {n} more checked answers are needed (an 80% chance at the mistakes seen so far)").format(
        n=attempt["needed"])
