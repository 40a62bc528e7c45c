"""A bundle made again from its own examples, those that are left: with its settings, its sets and the rung it had."""
from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from machikoba import __version__
from machikoba.pack.bundle import EXAMPLES, Bundle
from machikoba.pack.erased import left
from machikoba.records.clean import near_duplicate_links
from machikoba.records.columns import Column
from machikoba.records.origin import FILE
from machikoba.records.read import Example, Records
from machikoba.records.table import Source
from machikoba.settings import home, prices
from machikoba.tasks import classify
from machikoba.tune.finish import Clock, Plan, example_lines, finish
from machikoba.tune.ladder import Say
from machikoba.tune.options import Options
from machikoba.tune.run import climbed, enough_different, labels_of, readers
from machikoba.work import WorkFolder, key


def remake(bundle: Bundle, out: Path, say: Say, work_in: Path) -> dict[str, Any]:
    """Makes at `out` what takes the place of `bundle`; its summary.

    Sets and groups stay as they are, so nothing that proves has been learnt from; the certificate counts as a further one
    on these rows (DESIGN 7). Raises DataError where too little is left, BaseError where the base is not here any more.
    """
    price, clock, options = prices(), Clock(), options_of(bundle)
    kept = [(number, one) for number, one in enumerate(bundle.examples(), start=1) if one["text"]]
    records = records_of(bundle, [example_of(one, number) for number, one in kept])
    sets, groups = [one["set"] for _number, one in kept], [one["group"] for _number, one in kept]
    labels = labels_of(records, options)
    enough_different(records, near_duplicate_links([example.text for example in records.examples]))
    plan = Plan(records.examples, sets, groups, labels, [None] * len(sets))
    lines, data = example_lines(plan), data_of(plan)
    work = WorkFolder(work_in / key(lines, options, __version__))
    encoders = readers(options.bases, home(), work, say)
    found = climbed(plan, classify.ladder(encoders, options.rungs), labels, options, price, say)
    summary = finish(out, bundle.path.name, data, found, encoders, options, clock, price, say)
    work.end()
    return summary


def options_of(bundle: Bundle) -> Options:
    """The settings that `bundle` was made with, for the labels that are left."""
    facts = bundle.facts
    settings = tomllib.loads((bundle.path / "recipe.toml").read_text(encoding="utf-8"))["settings"]
    labels = {example["label"] for example in left(bundle)}
    return Options(
        none_label=facts["none_label"] if facts["none_label"] in labels else None,
        never_automatic=tuple(name for name in facts["never_automatic"] if name in labels),
        bases=(facts["base"]["source"],) if facts["base"] else (), rungs=(facts["rung"],),
        **{name: settings[name] for name in ("target_error", "target_coverage", "confidence", "holdout", "seed")})


def example_of(kept: dict[str, Any], number: int) -> Example:
    """A line of examples.jsonl as an example; number: of the line."""
    return Example(kept["id"], kept["text"], kept["text"], kept["label"], None, number, kept.get("origin", FILE))


def records_of(bundle: Bundle, examples: list[Example]) -> Records:
    """Examples of a bundle, as if they had just been read."""
    return Records(Source(bundle.path / EXAMPLES), ("text", "label"), Column("text", ""), Column("label", ""), None, examples,
                   len(examples), [], [], {}, {}, [])


def data_of(plan: Plan) -> dict[str, Any]:
    """The recipe's section on examples that come from a bundle."""
    return {"file": EXAMPLES, "sha256": hashlib.sha256(example_lines(plan)).hexdigest(), "text": "text", "label": "label",
            "rows": len(plan.examples)}
