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
from machikoba.base.encoder import Encoder
from machikoba.errors import RequirementError
from machikoba.language import _
from machikoba.memory import available_mib, peak_mib
from machikoba.prove.metrics import Interval, Rate, accuracy, coverage_interval
from machikoba.settings import Prices
from machikoba.tasks import classify
from machikoba.tasks.classify import Labels, correct, decide
from machikoba.tune.estimate import Estimate, estimate, rehearsed
from machikoba.tune.options import Options

Say = Callable[[str, int, int], None]  # (what is going on, steps done, steps in all)
Tell = Callable[["Sequence[Tried]"], None]  # every step of the ladder, tried so far or not


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
    rehearsed: Estimate | None = None  # after a dry run
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
            "rehearsed": self.rehearsed.to_dict() if self.rehearsed else None,
            "cv_accuracy": accuracy_.value if accuracy_ else None,
            "cv_interval": [accuracy_.low, accuracy_.high] if accuracy_ else None,
            "coverage_at_target": coverage.value if coverage else None,
            "coverage_interval": [coverage.low, coverage.high] if coverage else None,
            "cpu_seconds": round(self.cpu_seconds, 2), "wall_seconds": round(self.wall_seconds, 2),
            "yen": round(self.yen, 4), "peak_mib": self.peak_mib, "target_met": self.met,
            "skipped_because": self.skipped_because or None}


def climb(train: Train, rungs: Sequence[Rung], labels: Labels, options: Options, prices: Prices,
          say: Say, tell: Tell = lambda _tried: None) -> list[Tried]:
    """Every rung, tried or skipped, in order. The target: coverage at the bearable error, lower end of its 90% interval.

    tell: called with all steps before each of them and after the last.
    """
    tried = [Tried(rung, estimate(rung, train, prices)) for rung in rungs]
    spent, met = 0.0, False
    for step in tried:
        tell(tried)
        rung = step.rung
        step.skipped_because = _("not needed: the goal was met before") if met else _too_much(step.estimate, spent, options)
        if step.skipped_because:
            continue
        began = time.monotonic()
        step.rehearsed = rehearsed(rung, train, prices, options.seed, step.estimate)
        if step.rehearsed:
            spent += time.monotonic() - began
            step.skipped_because = _too_much(step.rehearsed, spent, options)
        if not step.skipped_because:
            judge(step, train, labels, options, prices, say)
            spent += step.wall_seconds
            met = step.met
    tell(tried)
    return tried


def _too_much(cost: Estimate, spent: float, options: Options) -> str:
    """Why a step is not taken: its time or its memory; empty where it fits."""
    if options.budget_seconds is not None and spent + cost.wall_seconds > options.budget_seconds:
        return _("over the time limit: it takes about {n} seconds").format(n=round(cost.wall_seconds))
    free = available_mib()
    if cost.peak_mib > free:
        return _("needs about {need} MiB of memory, {free} MiB are free").format(need=cost.peak_mib, free=free)
    return ""


def judge(step: Tried, train: Train, labels: Labels, options: Options, prices: Prices, say: Say) -> None:
    """Cross-validates one rung and fills in what it reached and cost; a rung whose training diverges is passed over."""
    cpu, wall = time.process_time(), time.monotonic()
    try:
        with arithmetic():
            held_out = step.rung.cross_fit(train, options.seed, partial(say, step.rung.name))
    except Diverged as error:
        step.skipped_because = _astray(error)
        charge(step, cpu, wall, prices)
        return
    true = train.labels[held_out.rows]
    chosen, confidence = decide(held_out.scores, labels)
    step.unseen = OutOfFold(held_out.rows, held_out.scores, chosen, confidence, correct(true, chosen))
    step.cv_accuracy = accuracy(true, chosen)
    step.coverage = coverage_interval(confidence, step.unseen.correct, options.target_error, seed=options.seed)
    step.met = step.coverage.low >= options.target_coverage
    charge(step, cpu, wall, prices)


def refit(tried: Sequence[Tried], chosen: Tried, train: Train, options: Options, prices: Prices) -> tuple[Tried, Fitted]:
    """The chosen rung fitted on every training row, its cost added to the step's; where that training diverges, the next
    best. Raises RequirementError, nothing_left, where there is none."""
    left: Tried | None = chosen
    while left is not None:
        cpu, wall = time.process_time(), time.monotonic()
        try:
            with arithmetic():
                return left, left.rung.fit(train, options.seed)
        except Diverged as error:
            left.skipped_because, left.cv_accuracy = _astray(error), None
        finally:
            charge(left, cpu, wall, prices)
        left = winner(tried, options)
    raise RequirementError("nothing_left", _("Every training went astray."), expected=_("a loss that falls"),
                           found=chosen.skipped_because, next=_("Add the steps words and features (--rungs words,features)."))


def _astray(error: Diverged) -> str:
    return _("training went astray: the loss rose from {first} to {last}").format(first=f"{error.first:.2f}",
                                                                                  last=f"{error.last:.2f}")


def charge(step: Tried, cpu: float, wall: float, prices: Prices) -> None:
    """Adds what has passed since the clocks read `cpu` and `wall`."""
    elapsed = time.monotonic() - wall
    step.cpu_seconds += time.process_time() - cpu
    step.wall_seconds += elapsed
    step.yen += prices.yen(elapsed)
    step.peak_mib = peak_mib()


def winner(tried: Sequence[Tried], options: Options) -> Tried | None:
    """The rung to use: the one that met the target, else the one most often right on the rows that all were judged on.

    Coverage far from the target is a matter of a few rows, so it decides only between rungs that are right equally often, or
    where it is clearly larger on those rows: its lower end above the other's upper end.
    """
    judged = [step for step in tried if step.cv_accuracy is not None and step.coverage is not None]
    if not judged:
        return None
    shared = set.intersection(*(set(step.unseen.rows.tolist()) for step in judged if step.unseen))
    covered = {id(step): _covered(step, shared, options) for step in judged}
    chosen = max(judged, key=lambda step: (step.met, _right(step, shared), covered[id(step)].value))
    if not chosen.met:
        for step in judged:
            if covered[id(step)].low > covered[id(chosen)].high:
                chosen = step
    return chosen


def further(tried: Sequence[Tried], encoders: Sequence[Encoder], train: Train, prices: Prices) -> list[Tried]:
    """The steps that nobody asked for though the goal was not reached, with what they would cost."""
    if any(step.met for step in tried):
        return []
    asked = {step.rung.name for step in tried}
    return [Tried(rung, estimate(rung, train, prices))
            for rung in classify.ladder(encoders, [name for name in classify.RUNGS if name not in asked])]


def _right(step: Tried, rows: set[int]) -> float:
    """Share of `rows` that the rung got right while it had not seen them."""
    assert step.unseen is not None
    return float(step.unseen.correct[np.isin(step.unseen.rows, sorted(rows))].mean())


def _covered(step: Tried, rows: set[int], options: Options) -> Interval:
    """Coverage at the bearable error on `rows`."""
    unseen = step.unseen
    assert unseen is not None
    chosen = np.isin(unseen.rows, sorted(rows))
    return coverage_interval(unseen.confidence[chosen], unseen.correct[chosen], options.target_error, seed=options.seed)


def arithmetic() -> AbstractContextManager[Any]:
    """One thread for matrices of at most some thousand rows: a second mostly waits for the first, and on a PC that has
    other work to do it waits ten times as long as it computes."""
    return threadpool_limits(1, user_api="blas")
