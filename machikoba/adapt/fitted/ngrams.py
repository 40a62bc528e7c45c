"""Character n-grams with TF-IDF weights: the words half of every rung, without a word segmenter.

Character n-grams need no dictionary, work for Japanese, English and Chinese in one message and forgive typos.
"""
from __future__ import annotations

import json
from collections.abc import Sequence

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

    def terms(self) -> bytes:
        """The vocabulary as JSON, in the order of the columns."""
        return json.dumps(self._vectorizer.get_feature_names_out().tolist(), ensure_ascii=False).encode()

    @property
    def idf(self) -> np.ndarray:
        """Inverse document frequency of each n-gram, float32 (n_ngrams,)."""
        return self._vectorizer.idf_.astype(np.float32)

    @classmethod
    def load(cls, terms: bytes, idf: np.ndarray) -> Ngrams:
        """The n-grams whose `terms` and `idf` were kept."""
        vectorizer = _vectorizer(vocabulary={term: i for i, term in enumerate(json.loads(terms))})
        vectorizer.idf_ = idf
        return cls(vectorizer)


def _vectorizer(**options: object) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, lowercase=False, dtype=np.float32, **options)
