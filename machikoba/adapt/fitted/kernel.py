"""The fitted form of the rungs `words` and `features`: a kernel machine over past messages.

A new message is compared with kept past messages ("anchors") by the words they share and, for `features`, by how
close the frozen model's features are; the labels' scores are weighted sums of these likenesses. One form serves ridge
and logistic heads alike, gives the nearest past messages for free, and knows when a message is unlike all of them.

    k(x, z) = a · cos(words x, words z) + (1 − a) · exp(γ (cos(features x, features z) − 1))
    scores  = k(x, anchors) @ weights + prior
"""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from machikoba.adapt.contract import Scores
from machikoba.adapt.fitted.ngrams import Ngrams, PackedNgrams

Encode = Callable[[Sequence[str]], np.ndarray]  # texts -> pooled features of the chosen layer, float32 (n, d)
ADAPTER = "adapter"  # folder beside the machine's files, in PEFT's layout
BLOCK = 1_024  # messages compared with the anchors at a time, to bound memory


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    words: share `a` of the word kernel; 1.0 is the rung `words`. strengths: of the penalty, one machine each; shares:
    what each of them says counts in the sum, together 1.
    """

    words: float
    gamma: float = 2.0
    layer: str = ""
    head: str = "ridge"
    strengths: tuple[float, ...] = (1.0,)
    shares: tuple[float, ...] = (1.0,)
    temperature: float = 1.0
    none: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Likeness:
    """Kernel values and their two halves between n messages and the anchors.

    kernel (n, m); words (n, m) cosine of n-grams; features (n, m) cosine of features, or None for the rung `words`.
    """

    kernel: np.ndarray
    words: np.ndarray
    features: np.ndarray | None

    def nearest(self) -> np.ndarray:
        """Closeness to the nearest anchor, (n, 1 or 2): its cosine by words, then by features."""
        halves = [self.words] if self.features is None else [self.words, self.features]
        return np.clip(np.column_stack([half.max(axis=1) for half in halves]), 0.0, 1.0)


@dataclass(frozen=True)
class Anchors:
    """Kept past messages.

    rows: which training rows they are, int (m,). words: csr (m, n_ngrams). features: unit rows (m, d) made of
    (raw − centre) / scale, or None for the rung `words`.
    """

    ngrams: Ngrams | PackedNgrams
    rows: np.ndarray
    words: csr_matrix
    features: np.ndarray | None = None
    centre: np.ndarray | None = None
    scale: np.ndarray | None = None

    def __len__(self) -> int:
        return self.words.shape[0]

    def place(self, raw: np.ndarray) -> np.ndarray:
        """Raw features (n, d) of new messages as unit rows in the anchors' space."""
        assert self.centre is not None
        assert self.scale is not None
        return placed(raw, self.centre, self.scale)

    def likeness(self, words: csr_matrix, features: np.ndarray | None, choice: Choice) -> Likeness:
        """Compares n messages, given as n-gram rows and placed features (n, d), with every anchor."""
        by_words = (words @ self.words.T).toarray()
        if self.features is None or features is None:
            return Likeness(by_words, by_words, None)
        return blend(by_words, features @ self.features.T, choice)


def blend(by_words: np.ndarray, by_features: np.ndarray | None, choice: Choice) -> Likeness:
    """The kernel of `choice` from its two halves (n, m)."""
    if by_features is None:
        return Likeness(by_words, by_words, None)
    kernel = np.exp(choice.gamma * (by_features - 1.0))
    if choice.words:
        kernel = choice.words * by_words + (1.0 - choice.words) * kernel
    return Likeness(kernel, by_words, by_features)


def placed(raw: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(raw - centre) / scale, rows (n, d) scaled to length 1; a zero row stays zero."""
    rows = raw - centre
    rows /= scale
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return rows


def softmax(scores: np.ndarray) -> np.ndarray:
    """Rows of probabilities."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


class KernelMachine:
    """Implements `Fitted`. weights: (m, n_labels); prior: (n_labels,); trust: weights of the confidence."""

    def __init__(self, anchors: Anchors, weights: np.ndarray, prior: np.ndarray, trust: np.ndarray, choice: Choice,
                 encode: Encode | None = None) -> None:
        self.anchors, self.weights, self.prior, self.trust, self.choice = anchors, weights, prior, trust, choice
        self._encode = encode
        self.adapter: dict[str, bytes] = {}  # files of the updates that the base needs before it gives these features

    def likeness(self, texts: Sequence[str], raw: np.ndarray | None = None) -> Likeness:
        """Compares `texts` with the anchors. raw: their features (n, d), where the rung needs any."""
        assert (raw is None) == (self.anchors.features is None), "features for a machine of words, or none for one of features"
        features = None if raw is None else self.anchors.place(raw)
        return self.anchors.likeness(self.anchors.ngrams.transform(texts), features, self.choice)

    def predict(self, texts: Sequence[str]) -> Scores:
        """`scores` of texts whose features the machine's own `encode` gives."""
        parts = [self.scores(block, self._encode(block) if self._encode else None)
                 for block in (texts[start:start + BLOCK] for start in range(0, len(texts), BLOCK))]
        return joined(parts, len(self.prior))

    def scores(self, texts: Sequence[str], raw: np.ndarray | None = None) -> Scores:
        """Probabilities and confidence of `texts`; raw: their features (n, d), where the rung needs any."""
        parts = []
        for start in range(0, len(texts), BLOCK):
            rows = slice(start, start + BLOCK)
            likeness = self.likeness(texts[rows], None if raw is None else raw[rows])
            scores = self.raw_scores(likeness)
            inputs = trust_inputs(scores, likeness.nearest(), self.choice)
            parts.append(Scores(softmax(scores * self.choice.temperature), confidence(inputs, self.trust)))
        return joined(parts, len(self.prior))

    def raw_scores(self, likeness: Likeness) -> np.ndarray:
        """Scores (n, n_labels) before they become probabilities; about 1 for the label of a clear case, else about 0."""
        return likeness.kernel @ self.weights + self.prior

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        anchors = self.anchors
        arrays = [anchors.rows, anchors.words.data, anchors.words.indices, anchors.words.indptr, anchors.features,
                  anchors.centre, anchors.scale, self.weights, self.prior, self.trust]
        return anchors.ngrams.nbytes + sum(array.nbytes for array in arrays if array is not None)

    def save(self) -> dict[str, bytes]:
        """Files by name: `machine.json`, `machine.safetensors`, `vocabulary.json`, and the adapter's where there is one."""
        from safetensors.numpy import save

        words, ngrams = self.anchors.words, self.anchors.ngrams
        assert isinstance(ngrams, Ngrams), "a machine that was loaded has no n-grams to write"
        tensors = {
            "rows": self.anchors.rows.astype(np.int64),
            "weights": self.weights.astype(np.float32), "prior": self.prior.astype(np.float32),
            "trust": self.trust.astype(np.float32), "words.idf": ngrams.idf,
            "words.data": words.data.astype(np.float32), "words.indices": words.indices.astype(np.int32),
            "words.indptr": words.indptr.astype(np.int64),
        }
        if self.anchors.features is not None and self.anchors.centre is not None and self.anchors.scale is not None:
            tensors["features"] = self.anchors.features.astype(np.float16)
            tensors["centre"] = self.anchors.centre.astype(np.float32)
            tensors["scale"] = self.anchors.scale.astype(np.float32)
        return {"machine.json": json.dumps(asdict(self.choice), ensure_ascii=False).encode(),
                "machine.safetensors": save({name: np.ascontiguousarray(t) for name, t in tensors.items()}),
                "vocabulary.json": ngrams.terms(),
                **{f"{ADAPTER}/{name}": content for name, content in self.adapter.items()}}

    @classmethod
    def load(cls, folder: Path) -> KernelMachine:
        """The inverse of `save`; whoever asks it brings the features, where the rung needs a base."""
        from safetensors.numpy import load_file

        tensors = load_file(folder / "machine.safetensors")
        choice = Choice(**json.loads((folder / "machine.json").read_bytes()))
        choice = replace(choice, strengths=tuple(choice.strengths), shares=tuple(choice.shares))
        ngrams = PackedNgrams.load((folder / "vocabulary.json").read_bytes(), tensors["words.idf"])
        shape = (len(tensors["words.indptr"]) - 1, len(tensors["words.idf"]))
        words = csr_matrix((tensors["words.data"], tensors["words.indices"], tensors["words.indptr"]), shape=shape)
        features = tensors["features"].astype(np.float32) if "features" in tensors else None
        anchors = Anchors(ngrams, tensors["rows"], words, features, tensors.get("centre"), tensors.get("scale"))
        return cls(anchors, tensors["weights"], tensors["prior"], tensors["trust"], choice)


def joined(parts: Sequence[Scores], n_labels: int) -> Scores:
    """Scores of several blocks, one after the other."""
    if not parts:
        return Scores(np.zeros((0, n_labels), np.float32), np.zeros(0, np.float32))
    return Scores(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.confidence for p in parts]))


def trust_inputs(scores: np.ndarray, nearest: np.ndarray, choice: Choice) -> np.ndarray:
    """What confidence is made of, (n, 4 or 5): the log odds of the likeliest real label against all others and against the
    likeliest of them, its raw score (which falls as a message is less like all anchors, where the odds may not), and
    closeness to the nearest anchor.

    scores (n, n_labels); nearest as of `Likeness.nearest`. The second odds tell a message between two labels from one that
    is a little like many; they raise what is answered at 10% error by up to ten points of a hundred (docs/log.md).
    """
    rows = np.arange(len(scores))
    real = scores.copy()
    if choice.none is not None:
        real[:, choice.none] = -np.inf
    label = real.argmax(axis=1)
    top = np.clip(softmax(scores * choice.temperature)[rows, label], 1e-6, 1 - 1e-6)
    others = scores.copy()
    others[rows, label] = -np.inf
    lead = (scores[rows, label] - others.max(axis=1)) * choice.temperature
    return np.column_stack([np.log(top / (1 - top)), lead, scores[rows, label], nearest])


def confidence(inputs: np.ndarray, trust: np.ndarray) -> np.ndarray:
    """Confidence (n,) in [0, 1]; trust: one weight per column of `inputs`, then a constant."""
    odds = inputs @ trust[:-1] + trust[-1]
    return 1.0 / (1.0 + np.exp(-np.clip(odds, -30, 30)))
