"""Whether a bundle that learnt more is as good as the one before, on rows that both know and neither had seen when asked."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from machikoba.adapt.lora import FROZEN
from machikoba.errors import BaseError
from machikoba.pack.bundle import Bundle
from machikoba.prove.metrics import paired_bootstrap
from machikoba.settings import home, prices
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels
from machikoba.tune.finish import Plan
from machikoba.tune.ladder import Say
from machikoba.tune.remake import example_of, options_of
from machikoba.tune.run import climbed, readers
from machikoba.work import WorkFolder

WORSE_BY = 0.01  # of accuracy: what is surely worse by less is as good
LEAST_ROWS = 100  # in common: of fewer, one message is more than a point, and none that differs says nothing


@dataclass(frozen=True)
class Comparison:
    """rows: training rows in common, with the same label; old_right, new_right: how many of them each said rightly out of fold;
    difference: of the shares, new − old, with the ends of its 95% interval (paired bootstrap)."""

    rows: int
    old_right: int
    new_right: int
    difference: float
    low: float
    high: float

    @property
    def enough(self) -> bool:
        return self.rows >= LEAST_ROWS

    @property
    def as_good(self) -> bool:
        """Whether the new one may take the old one's place."""
        return self.enough and self.low > -WORSE_BY

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def paired(old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]) -> Comparison:
    """From {id: (label, what was said out of fold)} of each."""
    common = sorted(id for id in old.keys() & new.keys() if old[id][0] == new[id][0])
    before, after = (np.array([one[id][0] == one[id][1] for id in common], dtype=bool) for one in (old, new))
    if not common:
        return Comparison(0, 0, 0, 0.0, -1.0, 1.0)
    found = paired_bootstrap(after, before)
    return Comparison(len(common), int(before.sum()), int(after.sum()), found.value, found.low, found.high)


def compare(old: Bundle, new: Bundle, say: Say, work_in: Path) -> Comparison | None:
    """Of the rows that both learnt from. An old one that does not know what it said out of fold is asked anew, the same way.

    None where that would take a training of the open model, or the open model is not here.
    """
    before = judged(old)
    if before is None:
        before = _judged_anew(old, say, work_in)
    after = judged(new)
    return None if before is None or after is None else paired(before, after)


def judged(bundle: Bundle) -> dict[str, tuple[str, str]] | None:
    """{id: (label, what was said out of fold)} of the training rows that were asked; None where the bundle does not know."""
    said = bundle.unseen()
    if said is None:
        return None
    return {one["id"]: (one["label"], label) for one, label in zip(bundle.examples(), said, strict=False)
            if label is not None and one["text"] and one["set"] == "train"}


def _judged_anew(bundle: Bundle, say: Say, work_in: Path) -> dict[str, tuple[str, str]] | None:
    if bundle.facts["rung"] in FROZEN:
        return None
    options = options_of(bundle)
    kept = [one for one in bundle.examples() if one["text"] and one["set"] == "train"]
    examples = [example_of(one, number) for number, one in enumerate(kept, 1)]
    labels = Labels(tuple(bundle.facts["labels"]), options.none_label, options.never_automatic)
    plan = Plan(examples, ["train"] * len(kept), [one["group"] for one in kept], labels, [None] * len(kept))
    work = WorkFolder(work_in / f"compare-{bundle.fingerprint}")
    try:
        rungs = classify.ladder(readers(options.bases, home(), work, say), options.rungs)
    except BaseError:
        return None
    unseen = climbed(plan, rungs, labels, options, prices(), say).chosen.unseen
    assert unseen is not None
    work.end()
    return {kept[row]["id"]: (kept[row]["label"], labels.names[label])
            for row, label in zip(unseen.rows.tolist(), unseen.chosen.tolist(), strict=True)}
