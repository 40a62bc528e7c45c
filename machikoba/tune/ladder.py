"""Climbs from the cheapest rung, judges each on rows it had not seen, and stops as soon as the target is met."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from machikoba.adapt.contract import Diverged, Fitted, Rung, Scores, Train
from machikoba.language import _
from machikoba.memory import available_mib, peak_mib
from machikoba.prove.metrics import Interval, Rate, accuracy, coverage_interval
from machikoba.settings import Prices
from machikoba.tasks.classify import Labels, correct, decide
from machikoba.tune.estimate import Estimate, estimate
from machikoba.tune.options import Options

Say = Callable[[str, int, int], None]  # (what is going on, steps done, steps in all)


@dataclass(frozen=True)
class OutOfFold:
    """Training rows judged by models that had not seen them. rows (m,): which; chosen: label index; confidence: -inf for
    a person."""

    rows: np.ndarray
    scores: Scores
    chosen: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray


@dataclass
class Tried:
    """One rung of the ladder, with its cost, or why it was not tried."""

    rung: Rung
    estimate: Estimate
    skipped_because: str = ""
    cv_accuracy: Rate | None = None
    coverage: Interval | None = None
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    yen: float = 0.0
    peak_mib: int = 0
    met: bool = False
    unseen: OutOfFold | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        accuracy_, coverage = self.cv_accuracy, self.coverage
        return {
            "rung": self.rung.name, "base": self.rung.base, "estimate": self.estimate.to_dict(),
            "cv_accuracy": accuracy_.value if accuracy_ else None,
            "cv_interval": [accuracy_.low, accuracy_.high] if accuracy_ else None,
            "coverage_at_target": coverage.value if coverage else None,
            "coverage_interval": [coverage.low, coverage.high] if coverage else None,
            "cpu_seconds": round(self.cpu_seconds, 2), "wall_seconds": round(self.wall_seconds, 2),
            "yen": round(self.yen, 4), "peak_mib": self.peak_mib, "target_met": self.met,
            "skipped_because": self.skipped_because or None}


def climb(train: Train, rungs: Sequence[Rung], labels: Labels, options: Options, prices: Prices,
          say: Say) -> list[Tried]:
    """Every rung, tried or skipped, in order. The target: coverage at the bearable error, lower end of its 90% interval."""
    tried: list[Tried] = []
    spent, met = 0.0, False
    for rung in rungs:
        step = Tried(rung, estimate(rung, train, prices))
        tried.append(step)
        if met:
            step.skipped_because = _("not needed: the goal was met before")
        elif options.budget_seconds is not None and spent + step.estimate.wall_seconds > options.budget_seconds:
            step.skipped_because = _("over the time limit: it takes about {n} seconds").format(
                n=round(step.estimate.wall_seconds))
        elif step.estimate.peak_mib > available_mib():
            step.skipped_because = _("needs about {need} MiB of memory, {free} MiB are free").format(
                need=step.estimate.peak_mib, free=available_mib())
        else:
            judge(step, train, labels, options, prices, say)
            spent += step.wall_seconds
            met = step.met
    return tried


def judge(step: Tried, train: Train, labels: Labels, options: Options, prices: Prices, say: Say) -> None:
    """Cross-validates one rung and fills in what it reached and cost; a rung whose training diverges is passed over."""
    cpu, wall = time.process_time(), time.monotonic()
    try:
        with arithmetic():
            held_out = step.rung.cross_fit(train, options.seed, partial(say, step.rung.name))
    except Diverged as error:
        step.skipped_because = _("training went astray: the loss rose from {first} to {last}").format(
            first=f"{error.first:.2f}", last=f"{error.last:.2f}")
        charge(step, cpu, wall, prices)
        return
    true = train.labels[held_out.rows]
    chosen, confidence = decide(held_out.scores, labels)
    step.unseen = OutOfFold(held_out.rows, held_out.scores, chosen, confidence, correct(true, chosen))
    step.cv_accuracy = accuracy(true, chosen)
    step.coverage = coverage_interval(confidence, step.unseen.correct, options.target_error, seed=options.seed)
    step.met = step.coverage.low >= options.target_coverage
    charge(step, cpu, wall, prices)


def refit(step: Tried, train: Train, options: Options, prices: Prices) -> Fitted:
    """The rung fitted on every training row; its cost is added to the step's."""
    cpu, wall = time.process_time(), time.monotonic()
    with arithmetic():
        fitted = step.rung.fit(train, options.seed)
    charge(step, cpu, wall, prices)
    return fitted


def charge(step: Tried, cpu: float, wall: float, prices: Prices) -> None:
    """Adds what has passed since the clocks read `cpu` and `wall`."""
    elapsed = time.monotonic() - wall
    step.cpu_seconds += time.process_time() - cpu
    step.wall_seconds += elapsed
    step.yen += prices.yen(elapsed)
    step.peak_mib = peak_mib()


def winner(tried: Sequence[Tried]) -> Tried | None:
    """The rung to use: the one that met the target, else the one most often right on the rows that all were judged on.

    Coverage far from the target is a matter of a few rows, so it decides only where it is clearly larger: its lower end
    above the other's value.
    """
    judged = [step for step in tried if step.cv_accuracy is not None and step.coverage is not None]
    if not judged:
        return None
    shared = set.intersection(*(set(step.unseen.rows.tolist()) for step in judged if step.unseen))
    chosen = max(judged, key=lambda step: (step.met, _right(step, shared)))
    for step in judged:
        if not chosen.met and step.coverage and chosen.coverage and step.coverage.low > chosen.coverage.value:
            chosen = step
    return chosen


def _right(step: Tried, rows: set[int]) -> float:
    """Share of `rows` that the rung got right while it had not seen them."""
    assert step.unseen is not None
    return float(step.unseen.correct[np.isin(step.unseen.rows, sorted(rows))].mean())


def arithmetic() -> AbstractContextManager[Any]:
    """One thread for matrices of at most some thousand rows: a second mostly waits for the first, and on a PC that has
    other work to do it waits ten times as long as it computes."""
    return threadpool_limits(1, user_api="blas")
