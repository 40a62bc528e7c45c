"""Character n-grams with TF-IDF weights: the words half of every rung, without a word segmenter.

Character n-grams need no dictionary, work for Japanese, English and Chinese in one message and forgive typos.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from machikoba.records.clean import normalise

SMALL = 2_000  # rows; below it every n-gram is kept, above it only those that two messages share


class Ngrams:
    """TF-IDF of character 1- to 4-grams inside words, rows of length 1."""

    def __init__(self, vectorizer: TfidfVectorizer) -> None:
        self._vectorizer = vectorizer

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Ngrams:
        """Learns vocabulary and document frequencies from `texts` (n,)."""
        vectorizer = _vectorizer(min_df=1 if len(texts) < SMALL else 2)
        vectorizer.fit(normalise(text) for text in texts)
        return cls(vectorizer)

    def transform(self, texts: Sequence[str]) -> csr_matrix:
        """Sparse float32 rows (n, n_ngrams)."""
        return self._vectorizer.transform(normalise(text) for text in texts)

    def save(self, folder: Path) -> dict[str, np.ndarray]:
        """Writes `vocabulary.json` and returns the tensors that go with it."""
        terms = self._vectorizer.get_feature_names_out().tolist()
        (folder / "vocabulary.json").write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")
        return {"words.idf": self._vectorizer.idf_.astype(np.float32)}

    @classmethod
    def load(cls, folder: Path, tensors: dict[str, np.ndarray]) -> Ngrams:
        """The inverse of `save`."""
        terms = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        vectorizer = _vectorizer(vocabulary={term: i for i, term in enumerate(terms)})
        vectorizer.idf_ = tensors["words.idf"]
        return cls(vectorizer)


def _vectorizer(**options: object) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, lowercase=False, dtype=np.float32, **options)
