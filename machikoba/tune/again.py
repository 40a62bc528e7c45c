"""A bundle made again from its own examples and what people made of messages at work since: tuned anew, proved anew.

    a message that was no example       becomes one
    one that was, with this label       stays as it is
    one that was, with another label    gets the new one: whoever corrected it knew more than the file
    a near duplicate with another       stands beside: the word that differs may be the one that matters
    labels that the bundle never had    become labels where enough messages have them, else these are left out

Sets stay for ever (DESIGN 4). A message kept aside that is corrected after it was handed over proves nothing any more: who
is asked about just those that the model finds hard would mend the proof where it hurts.
"""
from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from machikoba import __version__
from machikoba.errors import DataError
from machikoba.language import _
from machikoba.pack.bundle import Bundle
from machikoba.pack.erased import left
from machikoba.records.check import FEW_EXAMPLES
from machikoba.records.clean import example_ids, near_duplicate_links
from machikoba.records.origin import HANDOFF, Given
from machikoba.records.privacy import mask
from machikoba.records.read import Example, same_label
from machikoba.records.split import Set, assign_sets, original
from machikoba.settings import home, prices
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels
from machikoba.tune.finish import Clock, Plan, example_lines, finish
from machikoba.tune.ladder import Say, Tell
from machikoba.tune.options import Options
from machikoba.tune.remake import data_of, example_of, options_of, records_of
from machikoba.tune.run import base_names, climbed_for_proof, enough_different, labels_of, readers
from machikoba.work import WorkFolder, key


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from. known: set and group of the rows that had them before, where rows were kept aside.

    counts: how many messages are new ("handoff", "audit"), have another label now ("changed"), said nothing new ("same"), or
    were left out because their label is too rare ("left_out").
    """

    examples: list[Example]
    known: dict[int, tuple[Set, str]]
    counts: dict[str, int]


def learn(old: Bundle, given: Sequence[Given]) -> Lesson:
    """The examples of `old` with what people said since. Of several words on one message the last counts.

    Raises DataError: nothing_new, where that would teach nothing; examples_gone, where those of `old` are not kept any more.
    """
    kept = left(old)
    if not kept:
        raise DataError("examples_gone", _("The messages that it was made from are not kept any more."),
                        expected=_("the messages that it learnt from"), found="",
                        next=_("Make a sorter from a file; what was corrected since can stand in it."))
    last, names = _last(given, [str(one["label"]) for one in kept])
    rare = {label for label, n in Counter(one.label for one in last.values()).items() if label not in names and n < FEW_EXAMPLES}
    counts: Counter[str] = Counter(left_out=sum(one.label in rare for one in last.values()))
    last = {id: one for id, one in last.items() if one.label not in rare}
    aside = any(one["set"] != "train" for one in kept)
    examples, known = [], dict[int, tuple[Set, str]]()
    met: set[str] = set()
    for row, one in enumerate(kept):
        example, where = example_of(one, row + 1), one["set"]
        said = last.get(original(example.id))
        if said is not None:
            met.add(original(example.id))
            counts["same" if said.label == example.label else "changed"] += 1
            if said.label != example.label:
                example = replace(example, label=said.label, origin=said.origin)
                where = "none" if said.origin == HANDOFF and where != "train" else where
        examples.append(example)
        if aside:
            known[row] = (where, one["group"])
    for id, said in last.items():
        if id not in met:
            counts[said.origin] += 1
            examples.append(Example(id, said.text, said.text, said.label, None, len(examples) + 1, said.origin))
    if not counts["handoff"] + counts["audit"] + counts["changed"]:
        raise DataError("nothing_new", _("The corrections teach it nothing that it has not learnt already."),
                        expected=_("messages that it does not know, or kinds that were corrected"), found="",
                        next=_("Work the desk, and try again when there are some more."))
    return Lesson(examples, known, {name: counts[name] for name in ("handoff", "audit", "changed", "same", "left_out")})


def again(old: Bundle, lesson: Lesson, out: Path, name: str, say: Say, work_in: Path, resume: bool = False,
          tell: Tell = lambda _tried: None) -> dict[str, Any]:
    """Makes at `out` what `old` would be if it had learnt the `lesson`; its summary.

    name: what the bundle will be called. resume, work_in, tell: as of `tune`. It climbs the ladder that `old` climbed, and what
    certifies is spent as by any bundle on these rows. Raises MachikobaError; no half-made bundle is left behind.
    """
    price, clock, options = prices(), Clock(), _options(old)
    records = records_of(old, lesson.examples)
    labels = labels_of(records, options)
    links = near_duplicate_links([example.text for example in lesson.examples])
    enough_different(records, links)
    plan_at = partial(plan_of, lesson, labels, links)
    work = WorkFolder(work_in / key(example_lines(plan_at(options.holdout_share)), options, __version__))
    if not resume:
        work.begin()
    encoders = readers(base_names(options), home(), work, say)
    found = climbed_for_proof(plan_at, classify.ladder(encoders, options.rungs), labels, options, price, say, tell)
    summary = finish(out, name, data_of(found.plan), found, encoders, options, clock, price, say)
    work.end()
    return summary


def plan_of(lesson: Lesson, labels: Labels, links: np.ndarray, holdout: float) -> Plan:
    """Sets for the examples of a lesson with the share `holdout` kept aside: handed over messages are never among these."""
    examples = lesson.examples
    handed_over = {row for row, example in enumerate(examples) if example.origin == HANDOFF}
    sets, groups = assign_sets([example.id for example in examples], links, holdout, None, lesson.known if holdout else None,
                               handed_over)
    return Plan(examples, list(sets) if holdout else ["train"] * len(examples), groups, labels, [None] * len(examples))


def _last(given: Sequence[Given], labels: Sequence[str]) -> tuple[dict[str, Given], set[str]]:
    """The last word on each message, by its id, with masked text and labels spelt as in `labels`; and the known labels.

    Whoever was asked both ways about one message was asked because it was handed over.
    """
    names = list(dict.fromkeys(labels))
    known, last = set(names), dict[str, Given]()
    for one in sorted(given, key=lambda one: one.at):
        text = mask(one.text)[0]
        if not text.strip():
            continue
        label = next((name for name in names if same_label(name, one.label)), None)
        if label is None:
            label = one.label.strip()
            names.append(label)
        (id,) = example_ids([text])
        before = last.pop(id, None)
        origin = HANDOFF if before is not None and before.origin == HANDOFF else one.origin
        last[id] = Given(text, label, origin, one.at)
    return last, known


def _options(old: Bundle) -> Options:
    """The settings that `old` was made with, with all of its ladder."""
    settings = tomllib.loads((old.path / "recipe.toml").read_text(encoding="utf-8"))["settings"]
    base = old.facts["base"]
    # A base is named as it was; one that is a folder, as it was found then: who asks now may be in another folder.
    bases = tuple(base["source"] if base and Path(base["source"]).name == Path(name).name else name for name in settings["bases"])
    return replace(options_of(old), rungs=tuple(settings["rungs"]), bases=bases, budget_seconds=settings.get("budget_seconds"))
