"""What the monitor claims and what it gives: streams of audited answers, looked at after every answer.

    python bench/monitor.py      about one and a half minutes
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from harness import write_result
from scipy.stats import binomtest

from machikoba.prove import monitor as rule
from machikoba.prove.monitor import RUN_LENGTH, UP_PARTS, Evidence, Monitor, _mixed

STREAMS, LOOKS, NEVER = 2_000, 2_000, 10**9
Scheme = Callable[[np.random.Generator, Evidence], tuple[np.ndarray, np.ndarray | float]]


def looked_at(errors_or_scheme: Sequence[float] | Scheme, max_error: float = 0.05, confidence_level: float = 0.95,
              least: float = 1.0, looks: int = LOOKS, seed: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """After how many answers each stream was first qualified, and suspended. A sequence is the error of each, all audited."""
    draw, evidence = np.random.default_rng(seed), Evidence(max_error, confidence_level, (STREAMS,))
    qualified, suspended = np.full(STREAMS, NEVER), np.full(STREAMS, NEVER)
    steps: Any = repeat(errors_or_scheme, looks) if callable(errors_or_scheme) else errors_or_scheme
    for n, step in enumerate(steps, start=1):
        wrong, p = step(draw, evidence) if callable(step) else (draw.random(STREAMS) < step, 1.0)
        evidence.add(wrong, p, least)
        qualified[evidence.qualified & (qualified == NEVER)] = n
        suspended[evidence.suspended & (suspended == NEVER)] = n
    return qualified, suspended


def ever(times: np.ndarray) -> dict[str, Any]:
    """The share that came to it, with the exact 95% interval of Clopper and Pearson."""
    share = binomtest(int((times < NEVER).sum()), len(times)).proportion_ci(0.95)
    return {"share": round(float((times < NEVER).mean()), 4), "interval": [round(share.low, 4), round(share.high, 4)]}


def after(times: np.ndarray) -> dict[str, int | None]:
    """Number of answers by which half of the streams, and 80% of them, came to it; None where fewer did."""
    return {name: int(value) if (value := np.quantile(times, share, method="higher")) < NEVER else None
            for name, share in (("half", 0.5), ("80%", 0.8))}


def required() -> dict[str, Any]:
    found = {}
    for alpha, level in ((0.05, 0.95), (0.02, 0.95), (0.1, 0.95), (0.05, 0.9), (0.05, 0.99)):
        at, half, quarter = (looked_at([error] * LOOKS, alpha, level) for error in (alpha, alpha / 2, alpha / 4))
        _, jump = looked_at([alpha / 4] * 500 + [3 * alpha] * 500, alpha, level)
        found[f"{alpha}, {level}"] = {
            "qualified_at_alpha": ever(at[0]), "risk": round(1 - level, 4), "suspended_at_alpha": ever(at[1]),
            "suspended_at_alpha_at_most": LOOKS / RUN_LENGTH,
            "answers_until_qualified": {"at a quarter of alpha": after(quarter[0]), "at half of alpha": after(half[0])},
            "suspended_at_half_of_alpha": ever(half[1]), "suspended_at_a_quarter_of_alpha": ever(quarter[1]),
            "jump_to_thrice_alpha": {"within_200": round(float(((jump > 500) & (jump <= 700)).mean()), 4),
                                     "answers": after(jump - 500), "before_the_jump": round(float((jump <= 500).mean()), 4)}}
        print(alpha, level, found[f"{alpha}, {level}"], flush=True)
    return found


def jumps() -> dict[str, Any]:
    """From a quarter of alpha to other errors, after 500 answers; alpha 5%."""
    return {f"to {error}": after(looked_at([0.0125] * 500 + [error] * 1_500)[1] - 500) for error in (0.075, 0.1, 0.15, 0.25, 0.5)}


def run_lengths() -> dict[str, Any]:
    """What other thresholds of the detector would give; alpha 5%."""
    found = {}
    for length in (500, 2_000, 5_000, 10_000, 20_000, 50_000):
        rule.RUN_LENGTH = length
        _, jump = looked_at([0.0125] * 500 + [0.15] * 200)
        found[str(length)] = {
            "jump_to_thrice_within_200": round(float(((jump > 500) & (jump <= 700)).mean()), 4),
            **{f"suspended_at_{error}": ever(looked_at([error] * LOOKS)[1])["share"] for error in (0.025, 0.05)}}
    rule.RUN_LENGTH = RUN_LENGTH
    return found


def drift() -> dict[str, Any]:
    """Running averages that never fall below alpha, 5%: how many are ever qualified."""
    n = np.arange(LOOKS)

    def cunning() -> Scheme:
        above, luck = np.zeros(STREAMS), np.zeros(STREAMS)

        def scheme(draw: np.random.Generator, _: Evidence) -> tuple[np.ndarray, float]:
            error = np.where((above >= 0.05) & (luck < 0), 0.0, np.where(luck < 0, 0.05, 0.1))
            above[:] += error - 0.05
            wrong = draw.random(STREAMS) < error
            luck[:] += wrong - 0.05
            return wrong, 1.0
        return scheme
    return {"10% and 0% in turn, 200 answers each": ever(looked_at(list(np.where(n // 200 % 2 == 0, 0.1, 0.0)))[0]),
            "100 certain mistakes, then none": ever(looked_at(list(np.where(n < 100, 1.0, 0.0)))[0]),
            "errs only while it can afford to look good": ever(looked_at(cunning())[0])}


def by_outcome(alpha: float, p_wrong: float, p_right: float) -> Scheme:
    """Mistakes are audited with probability p_wrong: of the audited, this share is wrong."""
    among = alpha * p_wrong / (alpha * p_wrong + (1 - alpha) * p_right)

    def scheme(draw: np.random.Generator, _: Evidence) -> tuple[np.ndarray, np.ndarray | float]:
        wrong = draw.random(STREAMS) < among
        return wrong, np.where(wrong, p_wrong, p_right) if p_wrong != p_right else p_wrong
    return scheme


def by_kind(alpha: float, power: float) -> Scheme:
    """p uniform on [0.05, 1]; an answer's error is alpha·p^power/E[p^power], so often audited ones err more, or less."""
    p = np.linspace(0.05, 1, 951)
    error = np.minimum(1, p**power * alpha / (p**power).mean())
    error *= alpha / error.mean()

    def scheme(draw: np.random.Generator, _: Evidence) -> tuple[np.ndarray, np.ndarray]:
        kind = draw.choice(len(p), STREAMS, p=p / p.sum())  # the law of the audited
        return draw.random(STREAMS) < error[kind], p[kind]
    return scheme


def hiding(alpha: float) -> Scheme:
    """Mistakes are audited always until the wealth is above its start, then hardly ever; all else always."""
    def scheme(draw: np.random.Generator, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
        p_wrong = np.where(_mixed(evidence.up, UP_PARTS) > 0, 0.05, 1.0)
        wrong = draw.random(STREAMS) < alpha * p_wrong / (alpha * p_wrong + 1 - alpha)
        return wrong, np.where(wrong, p_wrong, 1.0)
    return scheme


def sampling() -> dict[str, Any]:
    """Alpha 5%, level 95%. The least probability is declared, or 0.05 as for an undeclared stream that is no census."""
    schemes: dict[str, tuple[Callable[[float], Scheme], float]] = {
        "p 0.1, declared": (lambda a: by_outcome(a, 0.1, 0.1), 0.1),
        "p 0.1, undeclared": (lambda a: by_outcome(a, 0.1, 0.1), 0.05),
        "mistakes p 0.05, others 1": (lambda a: by_outcome(a, 0.05, 1.0), 0.05),
        "mistakes p 1, others 0.05": (lambda a: by_outcome(a, 1.0, 0.05), 0.05),
        "mistakes p 0.2, others 0.6": (lambda a: by_outcome(a, 0.2, 0.6), 0.2),
        "p uniform, often audited ones err more": (lambda a: by_kind(a, 1), 0.05),
        "p uniform, seldom audited ones err more": (lambda a: by_kind(a, -1), 0.05),
        "mistakes hidden once it goes well": (hiding, 0.05),
    }
    found = {}
    for name, (scheme, least) in schemes.items():
        at, quarter, thrice = (looked_at(scheme(error), least=least) for error in (0.05, 0.0125, 0.15))
        found[name] = {"least": least, "qualified_at_alpha": ever(at[0]), "suspended_at_alpha": ever(at[1]),
                       "audits_until_qualified_at_a_quarter": after(quarter[0]),
                       "audits_until_suspended_at_thrice": after(thrice[1])}
        print(name, found[name], flush=True)
    return found


def undeclared() -> dict[str, Any]:
    """The documented limit: one Monitor that is told nothing, mistakes audited with 0.05 and all else always, error alpha."""
    draw, fooled = np.random.default_rng(12), 0
    for _ in range(200):
        monitor = Monitor()
        for wrong in draw.random(150) < 0.05 * 0.05 / (0.05 * 0.05 + 0.95):
            monitor.update(bool(wrong), 0.05 if wrong else 1.0)
            if monitor.qualified:
                fooled += 1
                break
    return {"streams": 200, "answers": 150, "qualified": fooled / 200}


def timeline() -> dict[str, Any]:
    """The bounds after n answers, medians of 40 streams, for three errors."""
    draw, marks = np.random.default_rng(13), (50, 100, 200, 500, 1_000, 2_000)
    found = {}
    for error in (0.0125, 0.025, 0.05):
        seen = np.zeros((40, len(marks), 2))
        for stream in seen:
            monitor = Monitor()
            for n, wrong in enumerate(draw.random(marks[-1]) < error, start=1):
                monitor.update(bool(wrong))
                if n in marks:
                    stream[marks.index(n)] = monitor.lower_bound, monitor.upper_bound
        found[f"error {error}"] = {str(n): np.median(seen[:, i], axis=0).round(4).tolist() for i, n in enumerate(marks)}
    return found


def seconds() -> dict[str, Any]:
    draw, monitor = np.random.default_rng(14), Monitor(least_sampling_probability=0.1)
    answers = [(bool(wrong), 0.1) for wrong in draw.random(5_000) < 0.0125]
    start = time.process_time()
    for answer in answers:
        monitor.update(*answer)
    one = (time.process_time() - start) / len(answers)
    start = time.process_time()
    for _ in range(200):
        assert monitor.lower_bound <= monitor.upper_bound
    both = (time.process_time() - start) / 200
    return {"one_update_us": round(1e6 * one, 1), "both_bounds_us": round(1e6 * both, 1)}


def main() -> None:
    write_result("monitor", {
        "streams": STREAMS, "looks": LOOKS, "required": required(), "jumps": jumps(), "run_lengths": run_lengths(),
        "drift": drift(), "sampling": sampling(), "undeclared": undeclared(), "bounds": timeline(), "cpu": seconds()})


if __name__ == "__main__":
    main()
