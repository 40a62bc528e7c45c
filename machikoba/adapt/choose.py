"""Cross-validation inside the training rows: layer, kernel, head and strength, then how far to trust the result.

Leave-one-out is not used: with more features than rows it turns degenerate (each row explains itself), and a row's twin
gives the answer away. Folds keep near-duplicates together instead.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from machikoba.adapt.closed_form import fit_trust, logistic, ridge, targets, temperature
from machikoba.adapt.contract import Train
from machikoba.adapt.fitted.kernel import Anchors, Choice, Encode, KernelMachine, trust_inputs, unit_rows
from machikoba.adapt.fitted.ngrams import Ngrams
from machikoba.records.split import folds

MAX_ANCHORS = 2_048  # past messages kept; above it a random share of the rows carries the solution (Nystroem)
MAX_CHOICE_ROWS = 2_000  # rows on which choices are made; more rows rarely change them and cost the cube of their number
FOLDED_ROWS = 1_000  # up to here choices use 4 folds, above it one fifth held out
GAMMAS = (1.0, 2.0, 4.0)
WORD_SHARES = (0.0, 0.2, 0.4)
RIDGE_STRENGTHS = (0.1, 0.3, 1.0, 3.0)
LOGISTIC_STRENGTHS = (3.0, 10.0)  # inverse: larger is weaker
LOG_LOSS_SHARE = 0.1
FIRST = Choice(words=0.2, gamma=2.0, strength=1.0)  # the kernel with which layers are compared


class Rows:
    """Training rows as the kernel sees them: n-grams are learnt anew for each subset, features are computed once."""

    def __init__(self, train: Train, features: np.ndarray | None) -> None:
        self.train, self.features = train, features

    def subset(self, rows: np.ndarray) -> Rows:
        return Rows(self.train.subset(rows), None if self.features is None else self.features[rows])

    def anchors(self) -> Anchors:
        """Every row as an anchor."""
        ngrams = Ngrams.fit(self.train.texts)
        words = ngrams.transform(self.train.texts)
        if self.features is None:
            return Anchors(ngrams, words)
        centre = self.features.mean(axis=0)
        return Anchors(ngrams, words, unit_rows(self.features - centre), centre)

    def fit(self, choice: Choice, seed: int, encode: Encode | None = None) -> KernelMachine:
        """A machine with the head and strength of `choice`, its confidence not yet learnt."""
        everything = self.anchors()
        kept = everything
        if len(self.train) > MAX_ANCHORS:
            kept = everything.subset(np.sort(np.random.default_rng(seed).permutation(len(self.train))[:MAX_ANCHORS]))
        among = kept.likeness(kept.words, _raw(kept), choice).kernel
        kernel = among if kept is everything else kept.likeness(everything.words, _raw(everything), choice).kernel
        wanted, prior = targets(self.train.labels, len(self.train.names))
        if choice.head == "logistic":
            weights, prior = logistic(kernel, among, self.train.labels, choice.strength, len(self.train.names))
        else:
            weights = ridge(kernel, among, wanted, choice.strength)
        n_inputs = 5 if self.features is None else 7
        return KernelMachine(kept, weights, prior, np.zeros(n_inputs + 1, np.float32), choice, encode)


def _raw(anchors: Anchors) -> np.ndarray | None:
    """Features as the encoder gave them, up to their length, which the kernel does not use."""
    return None if anchors.features is None else anchors.features + anchors.centre


@dataclass(frozen=True)
class Fold:
    """One fold of the training rows: the rows learnt from as anchors, and the rows held out."""

    inside: Rows
    outside: Rows
    anchors: Anchors
    held_out: np.ndarray

    def scores(self, choices: list[Choice]) -> Iterator[np.ndarray]:
        """Scores (n_held_out, n_labels) of the held-out rows under each choice; equal kernels are computed once."""
        words = self.anchors.ngrams.transform(self.outside.train.texts)
        wanted, prior = targets(self.inside.train.labels, len(self.inside.train.names))
        kernels: dict[tuple[float, float], tuple[np.ndarray, np.ndarray]] = {}
        for choice in choices:
            key = (choice.words, choice.gamma)
            if key not in kernels:
                among = self.anchors.likeness(self.anchors.words, _raw(self.anchors), choice).kernel
                kernels = {key: (among, self.anchors.likeness(words, self.outside.features, choice).kernel)}
            among, outside = kernels[key]
            if choice.head == "logistic":
                labels, n_labels = self.inside.train.labels, len(self.inside.train.names)
                weights, constants = logistic(among, among, labels, choice.strength, n_labels)
                yield outside @ weights + constants
            else:
                yield outside @ ridge(among, among, wanted, choice.strength) + prior


def split_inside(train: Train, seed: int) -> np.ndarray:
    """Part of each row for choosing, (n,): 0 to 3 held out in turn, or for many rows 0 held out once and -1 never."""
    if len(train) <= FOLDED_ROWS:
        return folds(train.labels, train.groups, 4, seed)
    part = folds(train.labels, train.groups, 5, seed)
    return np.where(part == 0, 0, -1)


def make_folds(rows: Rows, part: np.ndarray) -> list[Fold]:
    """A fold for each part from 0 up; a part of -1 is always learnt from."""
    made = []
    for held_out in range(int(part.max()) + 1):
        outside = np.flatnonzero(part == held_out)
        inside = rows.subset(np.flatnonzero(part != held_out))
        made.append(Fold(inside, rows.subset(outside), inside.anchors(), outside))
    return made


def best(options: list[Choice], made: list[Fold], labels: np.ndarray) -> tuple[Choice, np.ndarray, float]:
    """The option with the least loss on held-out rows, its held-out scores (in the folds' order) and that loss.

    Loss: share of wrong labels plus a tenth of the log loss. Few rows make the share alone jumpy; the log loss alone
    chooses too flat a kernel (on banking77, 8 per label, it cost 1 point; see docs/log.md).
    """
    held_out = np.concatenate([fold.held_out for fold in made])
    by_fold = [list(fold.scores(options)) for fold in made]
    found: tuple[Choice, np.ndarray, float] | None = None
    for i, option in enumerate(options):
        scores = np.concatenate([fold[i] for fold in by_fold])
        factor, log_loss = temperature(scores, labels[held_out])
        loss = float((scores.argmax(axis=1) != labels[held_out]).mean()) + LOG_LOSS_SHARE * log_loss
        if found is None or loss < found[2]:
            found = replace(option, temperature=factor), scores, loss
    assert found is not None
    return found


def learn(train: Train, layers: Mapping[str, np.ndarray] | None, seed: int,
          encode_layer: Mapping[str, Encode] | None = None) -> KernelMachine:
    """Chooses by cross-validation, learns the confidence, and fits on every row.

    layers: for the rung `features`, pooled features (n, d) by layer; None for the rung `words`. encode_layer: how new
    messages get the features of a layer. The choice carries its reason.
    """
    few = _some(train, seed)
    subset = train if len(few) == len(train) else train.subset(few)
    part = split_inside(subset, seed)
    if layers is None:
        rows = Rows(subset, None)
        options = [Choice(words=1.0, strength=s, none=train.none) for s in RIDGE_STRENGTHS]
        layer = ""
    else:
        layer, compared = _best_layer(subset, {name: values[few] for name, values in layers.items()}, part)
        rows = Rows(subset, layers[layer][few])
        options = [Choice(words=a, gamma=g, layer=layer, strength=s, none=train.none)
                   for a in WORD_SHARES for g in GAMMAS for s in RIDGE_STRENGTHS]
    made = make_folds(rows, part)
    choice, scores, loss = best(options, made, subset.labels)
    rivals = [replace(choice, head="logistic", strength=s) for s in LOGISTIC_STRENGTHS]
    rival, rival_scores, rival_loss = best(rivals, made, subset.labels)
    reason = f"held-out loss: ridge {loss:.3f}, logistic {rival_loss:.3f}"
    if rival_loss < loss:
        choice, scores = rival, rival_scores
    if layers is not None and len(layers) > 1:
        reason += f"; layers: {compared}"
    choice = replace(choice, reason=reason)
    trust = _trust(rows, made, scores, choice, seed)
    everything = Rows(train, None if layers is None else layers[layer])
    machine = everything.fit(choice, seed, encode_layer[layer] if encode_layer else None)
    machine.trust = trust
    return machine


def _some(train: Train, seed: int) -> np.ndarray:
    """Rows used for choosing: all, or a random share that keeps at least one row of each label."""
    if len(train) <= MAX_CHOICE_ROWS:
        return np.arange(len(train))
    order = np.random.default_rng(seed).permutation(len(train))
    first = order[np.unique(train.labels[order], return_index=True)[1]]
    rest = order[~np.isin(order, first)]
    return np.sort(np.concatenate([first, rest[:max(0, MAX_CHOICE_ROWS - len(first))]]))


def _best_layer(train: Train, layers: Mapping[str, np.ndarray], part: np.ndarray) -> tuple[str, str]:
    """The layer whose features leave the least held-out loss under the first kernel, and how all of them did."""
    if len(layers) == 1:
        return next(iter(layers)), ""
    losses = {}
    for name, values in layers.items():
        losses[name] = best([FIRST], make_folds(Rows(train, values), part), train.labels)[2]
    return min(losses, key=lambda name: losses[name]), ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())


def _trust(rows: Rows, made: list[Fold], scores: np.ndarray, choice: Choice, seed: int) -> np.ndarray:
    """Learns the confidence from held-out rows and from strangers: rows of labels that a machine never saw."""
    held_out = np.concatenate([fold.held_out for fold in made])
    nearest = np.concatenate([_nearest(fold.anchors, fold.outside, choice) for fold in made])
    inputs = trust_inputs(scores, nearest, choice)
    real = scores.copy()
    if choice.none is not None:
        real[:, choice.none] = -np.inf
    right = real.argmax(axis=1) == rows.train.labels[held_out]
    return fit_trust(inputs, right, _strangers(rows, choice, seed, inputs.shape[1]))


def _nearest(anchors: Anchors, rows: Rows, choice: Choice) -> np.ndarray:
    return anchors.likeness(anchors.ngrams.transform(rows.train.texts), rows.features, choice).nearest()


def _strangers(rows: Rows, choice: Choice, seed: int, n_inputs: int) -> np.ndarray:
    """Confidence inputs (s, n_inputs) of rows whose label the machine was kept from learning; none under 4 labels."""
    labels = rows.train.labels
    present = [label for label in np.unique(labels) if label != rows.train.none]
    if len(present) < 4:
        return np.zeros((0, n_inputs))
    shuffled = np.random.default_rng(seed).permutation(present)
    found = []
    for hidden in np.array_split(shuffled, min(5, len(present) // 2)):
        outside = rows.subset(np.flatnonzero(np.isin(labels, hidden)))
        machine = rows.subset(np.flatnonzero(~np.isin(labels, hidden))).fit(choice, seed)
        words = machine.anchors.ngrams.transform(outside.train.texts)
        likeness = machine.anchors.likeness(words, outside.features, choice)
        scores = likeness.kernel @ machine.weights + machine.prior
        found.append(trust_inputs(scores, likeness.nearest(), choice))
    return np.concatenate(found)
