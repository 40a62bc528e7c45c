"""Does the promise still hold at work? Automatic answers, audited blind at random, against "the average error is at most α".

Every claim here holds at all times at once, so one may look after every answer. Promotion and bounds are betting: wealth that
stays a fair game if the error were m, and so passes 1/δ with probability at most δ (Waudby-Smith and Ramdas, arXiv 2010.09686).
Suspension sums such wealths over all starting times (Shin, Ramdas and Rinaldo, arXiv 2203.03532), so that a good past does not
hide a bad present. An answer audited with probability p weighs 1/p. Pure: numbers in, statements out.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, floor, isfinite, log
from typing import Any

import numpy as np

LEAST = 0.05  # sampling probabilities below would let a single audit weigh more than 20 answers
UPPER_PART = 0.8  # of the risk δ is spent on the upper bound, by which one is promoted; the rest on the lower bound
RUN_LENGTH = 10_000  # audits, on average at the least, until a suspension that nothing called for
MOST = 0.9  # of the largest bet that cannot ruin: one mistake must not end a stream
UP_BETS = MOST * 0.75 ** np.arange(16)  # as shares of the largest bet; the best against m at error e is 1 - e/m
UP_PARTS = 0.6 ** np.arange(16) / (0.6 ** np.arange(16)).sum()
DOWN_BETS = 2.0 ** np.arange(-2, 5)  # as multiples of m: the best against m at error e is about (e - m)/m
DOWN_PARTS = np.array([1, 2, 4, 4, 2, 1, 0.5]) / 14.5
Side = Callable[[Any, Any, Any, Any], np.ndarray]  # `_up` or `_down`: log wealth that one answer brings each bet
POINTS, ZOOMS = 33, 3  # a bound is found on 33 points, thrice finer: to 1/32,768 of its side of α, rounded outwards


class Evidence:
    """What any number of streams side by side say against one α; `shape` is () for one. The rule itself, without its upkeep.

    up (*shape, 16): log wealth against "average error ≥ α", for each bet. turned (*shape, 7): the detector for each bet.
    qualified, suspended (*shape) bool. `least` is the smallest sampling probability an answer may have.
    """

    def __init__(self, max_error: float, confidence_level: float, shape: tuple[int, ...] = ()) -> None:
        if not (0 < max_error < 1 and 0 < confidence_level < 1):
            raise ValueError("max_error and confidence_level must lie between 0 and 1")
        self.max_error, self.confidence_level = max_error, confidence_level
        self.up = np.zeros((*shape, len(UP_BETS)))
        self.turned = np.zeros((*shape, len(DOWN_BETS)))
        self.qualified, self.suspended = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)

    @property
    def proved(self) -> np.ndarray:
        """Whether the upper bound is at most α now."""
        return _mixed(self.up, UP_PARTS) >= upper_threshold(self.confidence_level)

    def add(self, wrong: np.ndarray | bool, p: np.ndarray | float, least: float) -> None:
        """One more audited answer in each stream: wrong, p (*shape) or one for all. What is suspended stays as it is."""
        right, (gain, loss) = np.logical_not(wrong)[..., None], _weights(np.asarray(p)[..., None], least)
        self.up = self.up + _up(right, gain, loss, self.max_error)
        factor = np.exp(_down(~right, gain, loss, self.max_error))
        self.turned = np.where(self.suspended[..., None], self.turned, (self.turned + 1) * factor)
        self.suspended = self.suspended | (self.turned @ DOWN_PARTS >= RUN_LENGTH)
        self.qualified = (self.qualified | self.proved) & ~self.suspended


class Monitor:
    """Watches automatic answers of one bundle from one day on: `update` it with every answer audited blind, in their order.

    upper_bound, lower_bound: of the average error of all automatic answers so far, audited or not: true at all times
    together with probability `confidence_level`, also where the error drifts. 4/5 of the risk is the upper bound's.
    qualified: the upper bound has been at most `max_error` once, and it was not suspended since. If the average error stays at
    or above `max_error`, this ever comes true with probability at most 1 - `confidence_level`.
    suspended: the error has risen above `max_error`, now or in any stretch up to now. While each answer's error, given the past,
    is at most `max_error`, it takes 10,000 audits or more on average until this comes true by chance, and within n audits it
    does with probability at most n/10,000. It is final, for the same data must not acquit what they convicted: what was mended
    starts a new Monitor, the k-th for one bundle at `certificate.spent_level(confidence_level, k)`.

    least_sampling_probability: the smallest probability with which any automatic answer, of this stream or to come, is audited,
    known before the stream starts; then an answer's own probability may depend on anything but the outcome of its draw.
    Without it, a stream is taken for a census, each automatic answer audited, until an update says p < 1; from then on all of it
    is weighed as if p went down to 0.05, so `qualified` may fall back (the claims of before and after hold each with the level's
    probability). This misleads only while rarely audited answers exist and none of them has been fed, which no rule can see:
    declare the least wherever some answers are audited always and others rarely.
    """

    def __init__(self, max_error: float = 0.05, confidence_level: float = 0.95,
                 least_sampling_probability: float | None = None) -> None:
        """Raises ValueError for levels outside (0, 1) and a least outside [0.05, 1]."""
        if least_sampling_probability is not None and not LEAST <= least_sampling_probability <= 1:
            raise ValueError(f"least_sampling_probability must lie between {LEAST} and 1, found {least_sampling_probability}")
        self.max_error, self.confidence_level = float(max_error), float(confidence_level)
        self.least_sampling_probability = None if least_sampling_probability is None else float(least_sampling_probability)
        self._evidence = Evidence(self.max_error, self.confidence_level)
        self._counts: dict[int, list[int]] = {}  # by sampling probability, see `_slot`: how many were right, how many wrong

    @property
    def audited(self) -> int:
        return sum(map(sum, self._counts.values()))

    @property
    def wrong(self) -> int:
        return sum(wrong for _, wrong in self._counts.values())

    @property
    def qualified(self) -> bool:
        return bool(self._evidence.qualified)

    @property
    def suspended(self) -> bool:
        return bool(self._evidence.suspended)

    @property
    def upper_bound(self) -> float:
        """In (0, 1]; 1 before the first update. It is looked for when asked, in about 0.15 ms."""
        good, bad = (self.max_error, 0.0) if self._evidence.proved else (1.0, self.max_error)
        return self._bound(good, bad, UP_PARTS, _up, upper_threshold(self.confidence_level))

    @property
    def lower_bound(self) -> float:
        """In [0, 1), never above `upper_bound`; 0 before the first mistake."""
        return self._bound(0.0, 1.0, DOWN_PARTS, _down, lower_threshold(self.confidence_level))

    def update(self, wrong: bool, sampling_probability: float = 1.0) -> None:
        """One more audited answer, and the probability with which it was drawn for the audit, to 0.001 (rounded to be safe).

        Raises ValueError, and changes nothing, unless `wrong` is a truth value and the probability lies in [0.05, 1] and is not
        below the least declared.
        """
        if wrong not in (False, True):
            raise ValueError(f"wrong must be True or False, found {wrong}")
        if not LEAST <= sampling_probability <= 1:
            raise ValueError(f"sampling_probability must lie between {LEAST} and 1, found {sampling_probability}")
        if self.least_sampling_probability is not None and sampling_probability < self.least_sampling_probability:
            raise ValueError(f"sampling_probability {sampling_probability} is below the least declared, "
                             f"{self.least_sampling_probability}")
        before, slot = self._least, _slot(sampling_probability)
        self._counts.setdefault(slot, [0, 0])[int(wrong)] += 1
        if before != self._least:
            self._no_census()
        else:
            self._evidence.add(bool(wrong), sampling_probability, self._least)

    @property
    def _least(self) -> float:
        if self.least_sampling_probability is not None:
            return self.least_sampling_probability
        return 1.0 if self._counts.keys() <= {_slot(1.0)} else LEAST

    def _no_census(self) -> None:
        """The first p < 1 of an undeclared stream: wealth as if bets had been small from the start, the detector afresh.

        That very answer does not move the detector: it was picked because it was drawn, so its game is not fair.
        """
        evidence = self._evidence
        self._evidence = Evidence(self.max_error, self.confidence_level)
        self._evidence.suspended = evidence.suspended
        self._evidence.up = self._log_wealth(np.array([self.max_error]), _up)[0]
        self._evidence.qualified = self._evidence.proved & ~self._evidence.suspended

    def _log_wealth(self, m: np.ndarray, side: Side) -> np.ndarray:
        """(len(m), bets): what each bet has made of 1 against each m, from the counts alone: order has no part in it."""
        slots = np.array(list(self._counts), dtype=float).reshape(-1, 1, 1)
        right, wrong = np.array(list(self._counts.values()), dtype=float).reshape(-1, 2).T[..., None, None]
        gain, loss = _of_slot(slots, self._least)
        won, lost = (right, wrong) if side is _up else (wrong, right)
        steps = won * side(True, gain, loss, m[:, None]) + lost * side(False, gain, loss, m[:, None])
        total: np.ndarray = steps.sum(axis=0)
        return total

    def _bound(self, good: float, bad: float, parts: np.ndarray, side: Side, threshold: float) -> float:
        """The m nearest to `bad` that is refuted, where `good` (or all beyond it) is and refutations have no gaps."""
        if not self._counts:
            return good
        for _ in range(ZOOMS):
            m = np.linspace(good, bad, POINTS)[1:-1]
            refuted = _mixed(self._log_wealth(m, side), parts) >= threshold
            k = len(m) if refuted.all() else int(np.argmin(refuted))
            good, bad = (float(m[k - 1]) if k else good), (float(m[k]) if k < len(m) else bad)
        return good

    def to_dict(self) -> dict[str, Any]:
        """All there is to it, as finite numbers: `from_dict` goes on exactly where this stood."""
        evidence = self._evidence
        return {"max_error": self.max_error, "confidence_level": self.confidence_level,
                "least_sampling_probability": self.least_sampling_probability,
                "counts": [[slot, *counts] for slot, counts in self._counts.items()],
                "up": evidence.up.tolist(), "turned": evidence.turned.tolist(),
                "qualified": self.qualified, "suspended": self.suspended}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Monitor:
        """Raises ValueError where this is not what `to_dict` gave."""
        try:
            made = cls(stored["max_error"], stored["confidence_level"], stored["least_sampling_probability"])
            made._counts = {int(slot): [int(right), int(wrong)] for slot, right, wrong in stored["counts"]}
            evidence = made._evidence
            up, turned = np.array(stored["up"], dtype=float), np.array(stored["turned"], dtype=float)
            evidence.qualified, evidence.suspended = (np.array(bool(stored[name])) for name in ("qualified", "suspended"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a stored monitor: {error}") from error
        whole = up.shape == evidence.up.shape and turned.shape == evidence.turned.shape
        if not whole or not all(map(isfinite, (*up, *turned))) or (turned < 0).any() or any(
                slot < _slot(LEAST) or slot > _slot(1.0) or min(counts) < 0 for slot, counts in made._counts.items()):
            raise ValueError("not a stored monitor: numbers are missing or out of range")
        evidence.up, evidence.turned = up, turned
        return made


def upper_threshold(confidence_level: float) -> float:
    """Nats of wealth that refute "the average error is at least m"."""
    return -log((1 - confidence_level) * UPPER_PART)


def lower_threshold(confidence_level: float) -> float:
    """Nats of wealth that refute "the average error is at most m"."""
    return -log((1 - confidence_level) * (1 - UPPER_PART))


def _up(right: np.ndarray | bool, gain: Any, loss: Any, m: Any) -> np.ndarray:
    """log(1 + λ(m - wrong)/p) for each bet against "the error is at least m": λ is a share of least/(1 - m), not ruinous.

    It rises with m, so the m refuted are an interval; λ is fixed for the whole stream, so drift does not matter: the product
    exceeds a fair game nowhere where the average error is at least m, since Σ log(1 + λ(m - eᵢ)) ≤ λ Σ(m - eᵢ) ≤ 0.
    """
    odds = m / np.maximum(1 - m, 1e-300)  # an m that cannot be told from 1 is refuted by any right answer
    return np.where(right, np.log1p(UP_BETS * (gain * odds)), np.log1p(-UP_BETS * loss))


def _down(wrong: np.ndarray | bool, gain: Any, loss: Any, m: Any) -> np.ndarray:
    """log(1 + λ(wrong - m)/p) for each bet against "the error is at most m": λ is a share of least/m. It falls with m."""
    share = np.minimum(MOST, DOWN_BETS * m)
    return np.where(wrong, np.log1p(gain * share * ((1 - m) / m)), np.log1p(-loss * share))


def _mixed(log_wealth: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Log of the wealth of a capital of 1 laid out over the bets in `parts`."""
    most = log_wealth.max(axis=-1, keepdims=True)
    mixed: np.ndarray = most[..., 0] + np.log(np.exp(log_wealth - most) @ parts)
    return mixed


def _slot(p: float) -> int:
    """p to 0.001: twice its thousandths, an odd number where it lies between two. So the memory of a stream has an end."""
    thousandths = 1000 * p
    return floor(thousandths + 1e-9) + ceil(thousandths - 1e-9)


def _of_slot(slot: Any, least: float) -> tuple[Any, Any]:
    """least/p for what speaks for a bet, p rounded up, and for what speaks against it, p rounded down: at most what is fair."""
    return least / (np.ceil(slot / 2) / 1000), least / np.maximum(least, np.floor(slot / 2) / 1000)


def _weights(p: np.ndarray, least: float) -> tuple[Any, Any]:
    thousandths = 1000 * p
    return _of_slot(np.floor(thousandths + 1e-9) + np.ceil(thousandths - 1e-9), least)
