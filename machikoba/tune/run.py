"""From a file to a tested bundle: read, split, climb, then what `finish` does."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from machikoba import __version__, files
from machikoba.adapt.contract import Rung
from machikoba.base.catalog import default_base
from machikoba.base.encoder import Encoder
from machikoba.base.load import find_base
from machikoba.base.speed import measured_speed
from machikoba.errors import DataError, OptionError, RequirementError
from machikoba.language import _
from machikoba.pack.bundle import SUFFIX
from machikoba.prove.certificate import certificate_chance, minimum_answered, spent_level
from machikoba.records.check import LEAST_PER_LABEL
from machikoba.records.clean import near_duplicate_links
from machikoba.records.read import Records, read, same_label
from machikoba.records.split import assign_sets, oldest_first
from machikoba.settings import Prices, made_home, prices
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels
from machikoba.tune.estimate import estimate
from machikoba.tune.finish import Climbed, Clock, Plan, finish, outlook
from machikoba.tune.ladder import Say, Tell, Tried, climb, winner
from machikoba.tune.options import Options
from machikoba.tune.recipe import source_of
from machikoba.work import WorkFolder, key

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


def tune(data: str | Path, options: Options | None = None, out: str | Path | None = None, say: Say = lambda *_: None,
         announce: Any = None, resume: bool = False, work_in: Path | None = None, tell: Tell = lambda _tried: None) -> Result:
    """Makes a bundle from the records in `data`.

    out: the bundle's own path (default: HOME/bundles, named after the file). say: called with what is going on and how
    far; tell: with the steps of the ladder, at each of them. announce: called once with (records, steps not yet tried) before
    anything is spent. resume: goes on where an earlier call with the same data and options was interrupted; the weights come
    out the same to the byte. work_in: where it leaves what it has finished so far (default: HOME/work).
    Raises MachikobaError; no half-made bundle is left behind, also when interrupted.
    """
    options = options or Options()
    price, where = prices(), made_home()
    target = _target(data, out, where)
    clock = Clock()
    records, labels, links = _read(data, options)
    work = WorkFolder((work_in or where / "work") / key(files.digest(records.source.path), options, __version__))
    if not resume:
        work.begin()
    encoders = readers(base_names(options), where, work, say)
    rungs = classify.ladder(encoders, options.rungs)
    plan_at = partial(_plan, records, labels, links)
    if announce:
        announce(records, _steps(plan_at(options.holdout_share), rungs, price))
    climbed = climbed_for_proof(plan_at, rungs, labels, options, price, say, tell)
    summary = finish(target, target.name, source_of(records), climbed, encoders, options, clock, price, say)
    work.end()
    say("packing", 1, 1)
    return Result(target, summary, records, climbed.tried)


def estimated(data: str | Path, options: Options | None = None) -> tuple[Records, list[Tried]]:
    """What `tune` would read, and what each step would cost. Raises MachikobaError, as `tune` would before it starts."""
    options = options or Options()
    price, where = prices(), made_home()
    records, labels, links = _read(data, options)
    rungs = classify.ladder(readers(base_names(options), where, None, lambda *_: None), options.rungs)
    return records, _steps(_plan(records, labels, links, options.holdout_share), rungs, price)


def _read(data: str | Path, options: Options) -> tuple[Records, Labels, np.ndarray]:
    records = read(data, text=options.text, label=options.label, sheet=options.sheet)
    labels = labels_of(records, options)
    links = near_duplicate_links([example.text for example in records.examples])
    enough_different(records, links)
    return records, labels, links


def _steps(plan: Plan, rungs: Sequence[Rung], price: Prices) -> list[Tried]:
    """Every step, not yet tried."""
    train = plan.train(plan.rows("train"))
    return [Tried(rung, estimate(rung, train, price)) for rung in rungs]


def readers(names: Sequence[str], where: Path, work: WorkFolder | None, say: Say) -> list[Encoder]:
    """An encoder for each base. Raises BaseError."""
    found = [Encoder(find_base(name, where), measured_speed, where, work=work) for name in names]
    for encoder in found:
        encoder.progress = lambda done, total: say("reading", done, total)
    return found


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


def base_names(options: Options) -> Sequence[str]:
    """The bases that a run reads with, the default one where none is named."""
    if not set(options.rungs) - {"words"}:
        return ()
    return options.bases or (default_base(classify.NAME).name,)


def labels_of(records: Records, options: Options) -> Labels:
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


def enough_different(records: Records, links: np.ndarray) -> None:
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


def climbed_for_proof(plan_at: Callable[[float], Plan], rungs: Sequence[Rung], labels: Labels, options: Options,
                      price: Prices, say: Say, tell: Tell) -> Climbed:
    """Climbs; under "auto" keeps rows aside only where they have a fair chance of earning a certificate.

    plan_at: the plan with a share of rows kept aside. Raises RequirementError.
    """
    plan, auto = plan_at(options.holdout_share), options.holdout == "auto"
    if auto and not _could_certify(plan, None, options):
        plan, auto = plan_at(0.0), False
    first: dict[str, Any] | None = None
    while True:
        found = climbed(plan, rungs, labels, options, price, say, tell)
        first = first or found.outlook
        if not auto or _could_certify(plan, found.chosen, options):
            return replace(found, outlook=first)
        plan, auto = plan_at(0.0), False


def climbed(plan: Plan, rungs: Sequence[Rung], labels: Labels, options: Options, price: Prices, say: Say,
            tell: Tell = lambda _tried: None) -> Climbed:
    """The ladder climbed once. Raises RequirementError, nothing_tried."""
    tried = climb(plan.train(plan.rows("train")), rungs, labels, options, price, say, tell)
    chosen = winner(tried, options)
    if chosen is None or chosen.unseen is None:
        raise RequirementError(
            "nothing_tried", _("No way of tuning fits the limits."),
            expected=_("time and memory for at least one"),
            found="; ".join(f"{step.rung.name}: {step.skipped_because}" for step in tried),
            next=_("Raise --budget, name more --rungs, close other programs, or take a smaller open model: `machikoba bases` "
                   "lists them with their memory."))
    return Climbed(plan, tried, chosen, outlook(chosen.unseen, len(plan.examples), options))


def _could_certify(plan: Plan, chosen: Tried | None, options: Options) -> bool:
    """Whether the certify rows would earn a certificate with an 80% chance; before climbing: whether any could."""
    n_certify = len({plan.groups[i] for i in plan.rows("certify")})
    level = spent_level(options.confidence, 1)
    if chosen is None or chosen.unseen is None:
        return n_certify >= minimum_answered(options.target_error, level)
    unseen = chosen.unseen
    chance = certificate_chance(unseen.confidence, unseen.correct, n_certify, options.target_error, level)
    return chance >= WORTH_HOLDING_OUT


