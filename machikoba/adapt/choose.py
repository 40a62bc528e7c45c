"""Cross-validation inside the training rows: layer, kernel, head and strength, then how far to trust the result.

Leave-one-out is not used: with more features than rows it turns degenerate (each row explains itself), and a row's twin
gives the answer away. Folds keep near-duplicates together instead.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix

from machikoba.adapt.closed_form import Kernel, balanced_ridge, fit_trust, logistic, ridge, targets, temperature
from machikoba.adapt.contract import Train
from machikoba.adapt.fitted.kernel import Anchors, Choice, Encode, KernelMachine, Likeness, blend, placed, trust_inputs
from machikoba.adapt.fitted.ngrams import Ngrams
from machikoba.records.split import folds

MAX_ANCHORS = 2_048  # past messages kept; above it a random share of the rows carries the solution (Nystroem)
MAX_CHOICE_ROWS = 2_000  # rows on which choices are made; more rows rarely change them and cost the cube of their number
FOLDED_ROWS = 1_000  # up to here choices use 4 folds, above it one fifth held out
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
LOGISTIC_STRENGTH = 10.0  # inverse: larger is weaker
LOG_LOSS_SHARE = 0.1
# The kernel that is kept unless another is clearly better: the best over five sets of rows that no test uses
# (docs/log.md). Layers are compared with it.
FIRST = Choice(words=0.1, gamma=2.5)
RIVALS = ((0.0, 2.5), (0.3, 2.5), (0.1, 1.0), (0.1, 4.0))  # words, gamma


@dataclass(frozen=True)
class Rows:
    """Training rows as the kernel sees them: n-grams are chosen anew for each subset; they are counted once, and so are features.

    features: raw (n, d), or None for the rung `words`. standardise: divide each feature by its spread, which a decoder
    needs, whose few huge features drown the rest, and an encoder does not.
    """

    train: Train
    features: np.ndarray | None
    standardise: bool = False

    def subset(self, rows: np.ndarray) -> Rows:
        features = None if self.features is None else self.features[rows]
        return Rows(self.train.subset(rows), features, self.standardise)

    def seen_from(self, anchors: Anchors, at: slice | np.ndarray) -> tuple[csr_matrix, np.ndarray | None]:
        """N-gram rows and placed features of the rows `at`, to be compared with `anchors` of the same messages or of a part."""
        assert isinstance(anchors.ngrams, Ngrams)
        words = anchors.ngrams.weigh(self.train.counts_at(at))
        return words, None if self.features is None else anchors.place(self.features[at])

    def anchors(self, seed: int) -> Anchors:
        """The rows that carry the solution: all, or a random share of many. The n-grams, the centre and the spread are of all."""
        n = len(self.train)
        kept = np.arange(n)
        if n > MAX_ANCHORS:
            kept = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_ANCHORS])
        ngrams = Ngrams.fit(self.train.counts)
        words = ngrams.weigh(self.train.counts_at(kept))
        if self.features is None:
            return Anchors(ngrams, kept, words)
        centre = self.features.mean(axis=0)
        scale = self.features.std(axis=0) + 1e-6 if self.standardise else np.ones_like(centre)
        return Anchors(ngrams, kept, words, placed(self.features[kept], centre, scale), centre, scale)

    def fit(self, choice: Choice, seed: int, encode: Encode | None = None) -> KernelMachine:
        """A machine with the kernel, head and strength of `choice`; its confidence is not yet learnt."""
        anchors = self.anchors(seed)
        among = anchors.likeness(anchors.words, anchors.features, choice).kernel
        kernel = among if len(anchors) == len(self.train) else KernelRows(anchors, self, choice)
        weights, prior = solve(kernel, among, self.train, choice)
        return KernelMachine(anchors, weights, prior, np.zeros(0, np.float32), choice, encode)


@dataclass(frozen=True)
class KernelRows:
    """The kernel between many rows and the anchors, computed as it is asked for: in memory at once it could be gigabytes."""

    anchors: Anchors
    rows: Rows
    choice: Choice

    def __len__(self) -> int:
        return len(self.rows.train)

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        return self.anchors.likeness(*self.rows.seen_from(self.anchors, at), self.choice).kernel


def solve(kernel: Kernel, among: np.ndarray, train: Train, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """Weights (m, n_labels) and prior (n_labels,) under the head of `choice`: the sum over its strengths."""
    parts, prior = each_strength(kernel, among, train, choice)
    return np.sum([share * part for share, part in zip(choice.shares, parts, strict=True)], axis=0), prior


def each_strength(kernel: Kernel, among: np.ndarray, train: Train, choice: Choice) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights (m, n_labels) under each strength of `choice`, and the prior (n_labels,)."""
    if choice.head == "logistic":
        weights, prior = logistic(kernel, among, train.labels, choice.strengths[0], len(train.names))
        return [weights], prior
    if choice.head == "balanced":  # of few rows only, which all are anchors
        return balanced_ridge(among, train.labels, len(train.names), choice.strengths), np.zeros(len(train.names), np.float32)
    wanted, prior = targets(train.labels, len(train.names))
    return ridge(kernel, among, wanted, choice.strengths), prior


@dataclass(frozen=True)
class Fold:
    """Rows learnt from and rows held out, with the likenesses that every choice is blended from.

    Each as (words, features): inside, of the rows learnt from with the anchors; among, of the anchors with each other (the
    same where every row learnt from is one); outside, of the held-out rows with the anchors.
    """

    train: Train
    inside: tuple[np.ndarray, np.ndarray | None]
    among: tuple[np.ndarray, np.ndarray | None]
    outside: tuple[np.ndarray, np.ndarray | None]
    held_out: np.ndarray

    def scores(self, choice: Choice) -> np.ndarray:
        """Scores (n_strengths, n_held_out, n_labels) of the held-out rows under each strength of `choice`."""
        among, outside = blend(*self.among, choice).kernel, blend(*self.outside, choice).kernel
        inside = among if self.inside is self.among else blend(*self.inside, choice).kernel
        parts, prior = each_strength(inside, among, self.train, choice)
        return np.stack([outside @ part + prior for part in parts])

    def likeness(self, choice: Choice) -> Likeness:
        return blend(*self.outside, choice)


def make_fold(rows: Rows, inside: np.ndarray, outside: np.ndarray, seed: int = 0) -> Fold:
    """The fold that learns from the rows `inside` and holds out the rows `outside`, on anchors as `Rows.fit` takes them."""
    learnt, held = rows.subset(inside), rows.subset(outside)
    anchors = learnt.anchors(seed)

    def halves(words: csr_matrix, features: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        found = anchors.likeness(words, features, replace(FIRST, words=0.0))
        return found.words, found.features

    among = halves(anchors.words, anchors.features)
    between = among if len(anchors) == len(inside) else halves(*learnt.seen_from(anchors, slice(None)))
    return Fold(learnt.train, between, among, halves(*held.seen_from(anchors, slice(None))), outside)


def inner_folds(rows: Rows, seed: int) -> list[Fold]:
    """Four folds, or for many rows one fifth held out."""
    few = len(rows.train) <= FOLDED_ROWS
    part = folds(rows.train.labels, rows.train.groups, 4 if few else 5, seed)
    return [make_fold(rows, np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(4 if few else 1)]


@dataclass(frozen=True)
class Judged:
    """A choice and how it did on held-out rows: scores (n, n_labels) in the folds' order, wrong (n,) bool, loss of its
    best strength."""

    choice: Choice
    scores: np.ndarray
    wrong: np.ndarray
    loss: float

    def clearly_beats(self, other: Judged) -> bool:
        """Whether it is wrong less often by more than the standard error of the paired difference."""
        gain = other.wrong.astype(np.float64) - self.wrong
        return float(gain.mean()) > float(gain.std()) / len(gain) ** 0.5


def judge(choice: Choice, made: list[Fold], labels: np.ndarray) -> Judged:
    """How `choice` does on held-out rows, with the shares of its strengths and its temperature filled in.

    Instead of one strength all are summed, as calibrated scores, each with the share exp(-(loss - least) / standard error):
    taking the best one follows noise (on asdc_l1 with 100 per label it cost 0.3 points; docs/log.md). Loss: share of
    wrong labels plus a tenth of the log loss; the share alone is jumpy, the log loss alone prefers too flat a kernel.
    """
    held_out = labels[np.concatenate([fold.held_out for fold in made])]
    each = np.concatenate([fold.scores(choice) for fold in made], axis=1)
    calibrated = [temperature(scores, held_out) for scores in each]
    wrong = (each.argmax(axis=2) != held_out).mean(axis=1)
    losses = wrong + LOG_LOSS_SHARE * np.array([log_loss for _factor, log_loss in calibrated])
    error = float(np.clip(wrong.min(), 1 / len(held_out), 0.5))
    unit = (error * (1 - error) / len(held_out)) ** 0.5
    shares = np.exp(-(losses - losses.min()) / unit) * [factor for factor, _log_loss in calibrated]
    shares /= shares.sum()
    scores = np.tensordot(shares, each, axes=1)
    factor, _log_loss = temperature(scores, held_out)
    made_choice = replace(choice, shares=tuple(shares.tolist()), temperature=factor)
    return Judged(made_choice, scores, scores.argmax(axis=1) != held_out, float(losses.min()))


def learn(train: Train, layers: Mapping[str, np.ndarray] | None, seed: int, standardise: bool = False,
          encoders: Mapping[str, Encode] | None = None) -> KernelMachine:
    """Chooses by cross-validation, learns the confidence, and fits on every row.

    layers: for the rung `features`, raw pooled features (n, d) by layer; None for the rung `words`. encoders: how new
    messages get the features of a layer. The choice carries its reason.
    """
    few = _some(train, seed)
    subset = train if len(few) == len(train) else train.subset(few)
    layer, compared = "", ""
    if layers is not None:
        layer, compared = _best_layer(subset, {name: values[few] for name, values in layers.items()}, seed, standardise)
    rows = Rows(subset, None if layers is None else layers[layer][few], standardise)
    made = inner_folds(rows, seed)
    first, *rivals = _kernels(train, layer)
    found = judge(first, made, subset.labels)
    for rival in rivals:
        judged = judge(rival, made, subset.labels)
        found = judged if judged.clearly_beats(found) else found
    heads = [replace(found.choice, head="logistic", strengths=(LOGISTIC_STRENGTH,), shares=(1.0,))]
    if len(train) <= FOLDED_ROWS:
        heads.append(replace(found.choice, head="balanced"))
    others = [judge(head, made, subset.labels) for head in heads]
    reason = "wrong on held-out rows: " + ", ".join(
        f"{one.choice.head} {one.wrong.mean():.3f}" for one in (found, *others))
    for other in others:
        found = other if other.clearly_beats(found) else found
    choice = replace(found.choice, reason=reason + compared)
    everything = Rows(train, None if layers is None else layers[layer], standardise)
    machine = everything.fit(choice, seed, encoders[layer] if encoders else None)
    machine.trust = _trust(rows, made, found.scores, choice)
    return machine


def _kernels(train: Train, layer: str) -> list[Choice]:
    """The kernels to choose from, the one to keep unless another is clearly better first.

    Few rows, few choices: under 1,000 rows a free choice only follows noise (docs/log.md).
    """
    if not layer:
        return [Choice(words=1.0, strengths=STRENGTHS, none=train.none)]
    first = replace(FIRST, layer=layer, strengths=STRENGTHS, none=train.none)
    if len(train) <= FOLDED_ROWS:
        return [first]
    return [first, *(replace(first, words=words, gamma=gamma) for words, gamma in RIVALS)]


def _some(train: Train, seed: int) -> np.ndarray:
    """Rows used for choosing: all, or a random share that keeps at least one row of each label."""
    if len(train) <= MAX_CHOICE_ROWS:
        return np.arange(len(train))
    order = np.random.default_rng(seed).permutation(len(train))
    first = order[np.unique(train.labels[order], return_index=True)[1]]
    rest = order[~np.isin(order, first)]
    return np.sort(np.concatenate([first, rest[:max(0, MAX_CHOICE_ROWS - len(first))]]))


def _best_layer(train: Train, layers: Mapping[str, np.ndarray], seed: int, standardise: bool) -> tuple[str, str]:
    """The layer whose features leave the least held-out loss under the first kernel, and how all of them did."""
    if len(layers) == 1:
        return next(iter(layers)), ""
    losses = {name: judge(FIRST, inner_folds(Rows(train, values, standardise), seed), train.labels).loss
              for name, values in layers.items()}
    compared = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return min(losses, key=lambda name: losses[name]), f"; layers: {compared}"


def _trust(rows: Rows, made: list[Fold], scores: np.ndarray, choice: Choice) -> np.ndarray:
    """Learns the confidence from held-out rows: when is the likeliest real label right?"""
    held_out = np.concatenate([fold.held_out for fold in made])
    nearest = np.concatenate([fold.likeness(choice).nearest() for fold in made])
    real = scores.copy()
    if choice.none is not None:
        real[:, choice.none] = -np.inf
    right = real.argmax(axis=1) == rows.train.labels[held_out]
    return fit_trust(trust_inputs(scores, nearest, choice), right).astype(np.float32)
